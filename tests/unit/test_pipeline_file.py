"""Pipeline files: what they may say, their variables, and what a stage's hash notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.pipeline import inputs
from geofix.pipeline.context import Context
from geofix.pipeline.file import load_pipeline
from geofix.pipeline.inputs import digest, stamp
from geofix.pipeline.stages import REPORTS, STAGES
from geofix.pipeline.train_stage import one_part
from geofix.training.config import with_changes

HEAD = "name: test\nstages:\n"


@pytest.fixture(autouse=True)
def _clean(clean_environment):
    pass


def load(tmp_path, text, **variables):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    return load_pipeline(file, variables)


def stage(tmp_path, text):
    return load(tmp_path, HEAD + "  - " + text.replace("\n", "\n    "))[0].stages[0]


def test_variables_are_filled_in_everywhere(tmp_path):
    pipeline, out = load(
        tmp_path,
        "name: ${n}-x\nabout: of ${n}\nstages:\n  - do: ingest_aerial\n    paths: ['${here}/a', '${out}/b']\n"
        "    source: ${n}\n",
        n="run",
    )
    home = Path(os.environ["GEOFIX_HOME"]).resolve()
    assert (pipeline.name, pipeline.about, out) == ("run-x", "of run", home / "runs" / "run-x")
    assert pipeline.stages[0].paths == [tmp_path.resolve() / "a", out / "b"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("stages: []", BadInputError, "has no name"),
        ("- a", BadInputError, "has no name"),
        ("name: [", BadInputError, "is no YAML"),
        ("name: test\nstages: []", BadInputError, "stages"),
        ("name: ../up\nstages:\n  - do: cells", BadInputError, "name"),
        ("name: a/b\nstages:\n  - do: cells", BadInputError, "name"),
        (HEAD + "  - do: nothing", BadInputError, "stages.0"),
        (HEAD + "  - do: cells\n    levles: [3]", BadInputError, "stages.0.cells.levles"),
        (HEAD + "  - do: cells\n    levels: [a]", BadInputError, "stages.0.cells.levels.0"),
        (HEAD + "  - do: map\n    show: ${what}", UsageError, r"Unknown variable \$\{what\}"),
        (HEAD + "  - do: embed\n    what: people\n    model: m", BadInputError, "embed.what"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        load(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="No pipeline file"):
        load_pipeline(tmp_path / "none.yaml")


def test_every_kind_of_stage_has_a_function(tmp_path):
    from typing import get_args

    from geofix.pipeline.file import Stage

    kinds = set(get_args(get_args(Stage)[0]))
    assert kinds == set(STAGES) and set(REPORTS) < kinds


def test_a_parameter_and_the_stage_before_change_the_hash(tmp_path):
    one, two = stage(tmp_path, "do: cells\nlevels: [3]"), stage(tmp_path, "do: cells\nlevels: [4]")
    assert digest("a", one) == digest("a", one)
    assert len({digest("a", one), digest("a", two), digest("b", one)}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "do: model\nname: m\ntrunk: t\nweights: {file}",
        "do: ingest_photos\npath: {folder}\ndataset: d\nmetadata: {file}",
        "do: ingest_photos\npath: {folder}\ndataset: d",
        "do: ingest_regions\npath: {file}\nlevel: c\ncode_field: a\nname_field: b\ndataset: d",
        "do: ingest_aerial\npaths: [{folder}/none, {file}]\nsource: s",
        "do: ingest_aerial\npaths: [{folder}]\nsource: s\nextents: {file}",
        "do: codes\nmodel: m\nlevels: [16]\nwithin: {file}",
        "do: evaluate\nmodel: m\nlocalizers: [knn]\nwithin: {file}",
        "do: localize\nmodel: m\nlevel: 16\nphotos: ['{folder}/*.bin']",
    ],
)
def test_a_changed_file_is_noticed_and_an_untouched_one_is_not(tmp_path, text):
    folder = tmp_path / "in"
    folder.mkdir()
    file = folder / "file.bin"
    file.write_bytes(b"one")
    made = stage(tmp_path, text.format(file=file, folder=folder))
    first = digest("a", made)
    assert digest("a", made) == first
    status = file.stat()
    file.write_bytes(b"two")
    if "{file}" in text or "*.bin" in text:  # the same size and time: a named file counts by content
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = digest("a", made)
    assert changed != first
    file.unlink()
    assert digest("a", made) not in (first, changed)


def test_stamps_of_folders_and_of_files_beside(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    first = stamp(folder)
    (folder / "deep" / "a.jpg").write_bytes(b"x")
    second = stamp(folder)
    os.rename(folder / "deep" / "a.jpg", folder / "b.jpg")
    assert len({first, second, stamp(folder), stamp(tmp_path / "none")}) == 4
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as odd:
        odd.write(b"x")
    assert stamp(folder) not in (first, second)
    shape = tmp_path / "s.shp"
    shape.write_bytes(b"1")
    alone = stamp(shape)
    (tmp_path / "s.dbf").write_bytes(b"2")
    assert stamp(shape) != alone
    touched = stamp(shape)
    os.utime(shape, ns=(1, 1))
    assert stamp(shape) == touched, "a file copied anew is the same file"
    monkeypatch.setattr(inputs, "HASHED_BYTES", 0)
    large = stamp(shape)
    os.utime(shape, ns=(2, 2))
    assert stamp(shape) != large, "a file too large to be read counts by size and time"


def test_reports_of_two_stages_of_one_kind_do_not_overwrite_each_other(tmp_path):
    pipeline, out = load(
        tmp_path,
        HEAD + "  - do: table\n  - do: localize\n    model: m\n    level: 16\n"
        "  - do: localize\n    model: m\n    level: 15\n",
    )
    context = Context(None, pipeline, out)
    table, first, second = pipeline.stages
    assert context.file(table, "table.md") == out / "table.md"
    assert context.file(first, "localized.json") == out / "localized.json"
    assert context.file(second, "localized.json") == out / "localized-2.json"
    assert context.code_set("m", "cellmean", 16) == "test-m-cellmean-l16"


def test_changes_of_a_training_configuration_are_made_or_refused(tmp_path):
    raw = {"aerial": None, "epochs": 3, "loss": {"alpha": 2}}
    made = with_changes(raw, {"loss.beta": 10, "ground.trunk": "x"})
    assert made == {**raw, "loss": {"alpha": 2, "beta": 10}, "ground": {"trunk": "x"}}
    for name in ("aerial.trunk", "epochs.many"):
        with pytest.raises(BadInputError, match=f"{name}.* not a section"):
            with_changes(raw, {name: 1})


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b"])
def test_a_trained_model_cannot_be_named_out_of_its_folder(name):
    assert one_part("city v2") == "city v2"
    with pytest.raises(UsageError, match="cannot be named"):
        one_part(name)
