"""What a benchmark of localizers may say, its pipelines, and the budget that all trainings share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("timm", reason="needs the extra `train`")

from test_classify_training import TINY
from training_files import snapshot

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.evaluation.benchmark import weight_bytes
from geofix.jobs.benchmark import staged_benchmark
from geofix.models.classifier_dir import load_classifier
from geofix.pipeline.benchmark import read_benchmark
from geofix.pipeline.benchmark_run import rows_of
from geofix.pipeline.file import load_pipeline
from geofix.pipeline.inputs import beginning
from geofix.training import budget as budgets
from geofix.training.budget import Budget, photos_per_epoch, within
from geofix.training.classify import train_classifier
from geofix.training.classify_config import parse_classifier_config
from geofix.training.sections import checked

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture(autouse=True)
def _clean(clean_environment: pytest.MonkeyPatch) -> None:
    pass


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return snapshot(tmp_path_factory.mktemp("town"), aerial=False).path


def written(folder: Path, **changes: Any) -> Path:
    """A benchmark of a classifier on a snapshot."""
    document = {
        "name": "b",
        "budget": {"photos": 100},
        "snapshot": "${here}/snapshot",
        "trainings": [
            {"name": "one", "config": str(CONFIGS / "classifier.yaml"), "localizers": ["classifier"]}
        ],
    }
    file = folder / "b.yaml"
    file.write_text(yaml.safe_dump({**document, **changes}))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {}}, "budget: .*photos or minutes"),
        ({"budget": {"photos": 1, "minutes": 1}}, "budget: .*photos or minutes"),
        ({"budget": {"photos": 0}}, r"budget\.photos: .*greater than or equal to 1"),
        ({"snapshot": None}, "give snapshot, or setup"),
        ({"trainings": []}, "trainings: "),
        ({"trains": 1}, "trains: Extra inputs"),
        ({"seeds": [-1]}, r"seeds\.0: "),
        (
            {"trainings": [{"name": "a", "config": "c", "localizers": ["magic"]}]},
            r"trainings\.0: .*'magic' is none of .*classifier_fstar",
        ),
        (
            {"trainings": [{"name": "a", "config": "c", "localizers": ["knn"], "crops": "hundred"}]},
            r"trainings\.0\.crops: ",
        ),
        ({"protocol": "mine"}, "Unknown protocol 'mine'"),
        ({"protocol": "plonk"}, "missing: every row counts the same photos"),
        (
            {"trainings": [{"name": "a", "config": "c", "localizers": ["cellmean"], "exclude_author": True}]},
            r"trainings\.0: .*cellmean does not search photos",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, town: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    with pytest.raises(BadInputError, match=message):
        read_benchmark(written(tmp_path, **changes))


def test_files_that_are_missing_or_of_no_kind_are_refused(tmp_path: Path, town: Path) -> None:
    with pytest.raises(NotFoundError):
        read_benchmark(written(tmp_path))
    (tmp_path / "snapshot").symlink_to(town)
    (tmp_path / "c.yaml").write_text("epochs: 3")
    given = {"name": "a", "config": str(tmp_path / "c.yaml"), "localizers": ["knn"]}
    with pytest.raises(BadInputError, match="neither `ground` nor `encoder`"):
        read_benchmark(written(tmp_path, trainings=[given]))
    cells = {"name": "a", "config": str(CONFIGS / "tiny.yaml"), "localizers": ["cellcode"]}
    with pytest.raises(UsageError, match="need aerial imagery"):
        read_benchmark(written(tmp_path, trainings=[cells]))
    with pytest.raises(UsageError, match=r"Unknown variable \$\{world\}"):
        read_benchmark(CONFIGS / "benchmark-tiny.yaml", variables={"of": "x"})


def test_a_benchmark_says_how_all_its_rows_are_counted_and_which_are_asked_twice(
    tmp_path: Path, town: Path
) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    given = {"name": "a", "config": str(CONFIGS / "classifier.yaml"), "exclude_author": True}
    given |= {"localizers": ["classifier", "knn", "cellmean"], "labels": {"knn": "nearest photo"}}
    plan = read_benchmark(written(tmp_path, trainings=[given], protocol="pigeon", comparison="<"))
    asked = [stage for stage in load_pipeline(plan.parts[0].file)[0].stages if stage.do == "evaluate"]
    assert [(stage.localizers, stage.exclude_author) for stage in asked] == [
        (["knn", "cellmean"], False),
        (["knn"], True),
        (["classifier"], False),
    ]
    assert {(stage.protocol, stage.comparison, stage.radius) for stage in asked} == {("pigeon", "<", None)}
    plain = read_benchmark(written(tmp_path, trainings=[{**given, "exclude_author": False}]))
    text = plain.parts[0].file.read_text()
    assert "exclude_author" not in text and "protocol" not in text
    assert rows_of(plan.benchmark.trainings[0]) == [
        ("classifier", False),
        ("knn", False),
        ("knn", True),
        ("cellmean", False),
    ]


def test_every_training_and_seed_is_a_pipeline_of_its_own(tmp_path: Path, town: Path) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    tiny = {"name": "cells", "config": str(CONFIGS / "tiny.yaml"), "localizers": ["prototype_only", "knn"]}
    joint = {"name": "joint", "config": str(CONFIGS / "classifier.yaml"), "localizers": ["classifier", "knn"]}
    plan = read_benchmark(
        written(
            tmp_path, trainings=[tiny, {**joint, "crops": "five-max"}], seeds=[0, 7], budget={"minutes": 2}
        )
    )
    assert [part.name for part in plan.parts] == ["b-cells-s0", "b-cells-s7", "b-joint-s0", "b-joint-s7"]
    pipelines = [load_pipeline(part.file)[0] for part in plan.parts]
    assert [stage.do for stage in pipelines[0].stages] == ["train", "embed", "codes", "evaluate"]
    assert [stage.do for stage in pipelines[2].stages] == [
        "train_classifier",
        "embed",
        "evaluate",
        "evaluate",
    ]
    learn, _, searched, looked = pipelines[3].stages
    assert learn.changes == {"seed": 7} and learn.budget == Budget(minutes=2)
    assert (searched.localizers, searched.crops) == (["knn"], None)
    assert (looked.localizers, looked.crops) == (["classifier"], "five-max")
    assert pipelines[0].snapshot == tmp_path / "snapshot"
    jobs = staged_benchmark(plan).stages
    assert [job.after for job in jobs if not job.after] == [[]] * 4  # they wait for nobody but their own
    assert {job.queue for job in jobs if "train" in job.name} == {"gpu"} and len(jobs) == 16


def test_the_setup_comes_first_and_a_given_snapshot_takes_its_place(tmp_path: Path, town: Path) -> None:
    given = {"of": "x", "world": str(tmp_path), "maps": "m", "scenes": "s"}
    for name, count in (("benchmark.yaml", 9), ("benchmark-tiny.yaml", 8)):
        plan = read_benchmark(CONFIGS / name, variables=given)
        assert (
            plan.setup is not None and plan.snapshot == plan.home / "runs" / "benchmark-x-setup" / "snapshot"
        )
        jobs = staged_benchmark(plan).stages
        assert jobs[4].name == "00 setup 05-snapshot"
        first = [job for job in jobs if jobs[4].name in job.after]
        assert len(first) == len(plan.parts) == count
        isn = next(job for job in first if "isn" in job.name)
        assert len(isn.after) == 2  # they begin as the joint model
        offered = {name for item in plan.benchmark.trainings for name in item.localizers}
        assert {
            "cellcode",
            "knn_density",
            "knn_density_compat",
            "planet",
            "cplanet",
            "mvmf_mode",
            "isn_f",
            "translocator",
        } <= offered
    (tmp_path / "snapshot").symlink_to(town)
    with pytest.raises(UsageError, match="aerial imagery"):  # of this snapshot, which has none
        given = {"of": "x", "maps": "m", "scenes": "s"}
        read_benchmark(CONFIGS / "benchmark-tiny.yaml", variables=given, snapshot=tmp_path / "snapshot")
    alone = beginning(load_pipeline(plan.setup)[0])
    other = load_pipeline(read_benchmark(written(tmp_path)).parts[0].file)[0]
    assert beginning(other) != alone  # it depends on the snapshot


def test_a_budget_of_photos_is_so_many_whole_epochs(town: Path, tmp_path: Path) -> None:
    config = parse_classifier_config({**TINY, "epochs": 99}, "test")
    per_epoch = photos_per_epoch(config, town)
    assert per_epoch == 18  # 20 photos in batches of 6
    half = config.model_copy(update={"share": 0.5})
    assert photos_per_epoch(half, town) == 6
    given = [within(Budget(photos=n), config, town, tmp_path, train_classifier) for n in (1, 36, 46, 179)]
    assert [item.epochs for item in given] == [1, 2, 3, 10]
    assert within(None, config, town, tmp_path, train_classifier) is config
    result = train_classifier(given[1], town, tmp_path / "out")
    assert result["steps"] * config.batch.photos == 36
    heads, rest = weight_bytes(tmp_path / "out" / "model" / "weights.safetensors")
    network = load_classifier(tmp_path / "out").network
    assert heads == sum(4 * value.numel() for value in network.heads.state_dict().values()) and rest > heads


def test_a_budget_of_minutes_follows_a_speed_that_is_measured_once(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_classifier_config(TINY, "test")
    measured = budgets.speed(config, town, tmp_path / "out", train_classifier)
    assert measured > 0 and {path.name for path in tmp_path.iterdir()} == {"out.speed.json"}
    monkeypatch.setattr(budgets, "_pilot", lambda *_: pytest.fail("measured twice"))
    minutes = 18 * 5 / measured / 60
    found = within(Budget(minutes=minutes), config, town, tmp_path / "out", train_classifier)
    assert found.epochs == 5
    with pytest.raises(BadInputError, match=r"jobs: .*photos or minutes"):
        checked(Budget, {}, "jobs")


def test_a_further_method_needs_no_line_of_code(tmp_path: Path, town: Path) -> None:
    """Whatever kind a configuration is of, its stage and its localizers come from the file."""
    (tmp_path / "snapshot").symlink_to(town)
    (tmp_path / "new.yaml").write_text("kind: of-tomorrow\nencoder: {trunk: x}")
    given = {"name": "new", "config": str(tmp_path / "new.yaml"), "localizers": ["classifier_f"]}
    (part,) = read_benchmark(written(tmp_path, trainings=[given])).parts
    assert [stage.do for stage in load_pipeline(part.file)[0].stages] == ["train_classifier", "evaluate"]


def test_a_training_may_take_up_the_model_of_an_earlier_one(tmp_path: Path, town: Path) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    one = {"name": "one", "config": str(CONFIGS / "classifier.yaml"), "localizers": ["classifier"]}
    two = {**one, "name": "two", "models": {"networks.start": "one"}}
    plan = read_benchmark(written(tmp_path, trainings=[one, two], seeds=[3, 4]))
    part = next(item for item in plan.parts if item.name == "b-two-s4")
    taken = load_pipeline(part.file)[0].stages[0].changes["networks.start"]
    assert Path(taken) == plan.home / "training" / "b-one-s4" / "b-one-s4"
    first, _ = (job for job in staged_benchmark(plan).stages if job.name.startswith("04 two-s4"))
    assert first.after == ["02 one-s4 01-train_classifier"]
    with pytest.raises(BadInputError, match="two needs 'one', which is none before it"):
        read_benchmark(written(tmp_path, trainings=[two, one]))


def test_a_budget_given_with_the_command_replaces_that_of_the_file(tmp_path: Path, town: Path) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    plan = read_benchmark(written(tmp_path), budget=Budget(minutes=2))
    assert plan.benchmark.budget == Budget(minutes=2)
    assert load_pipeline(plan.parts[0].file)[0].stages[0].budget == Budget(minutes=2)


def test_a_training_that_is_left_out_needs_no_variables(tmp_path: Path, town: Path) -> None:
    (tmp_path / "snapshot").symlink_to(town)
    one = {"name": "one", "config": str(CONFIGS / "classifier.yaml"), "localizers": ["classifier"]}
    two = {**one, "name": "two", "changes": {"scenes.labels": "${scenes}"}}
    file = written(tmp_path, trainings=[one, two])
    with pytest.raises(UsageError, match="scenes"):
        read_benchmark(file)
    assert [part.name for part in read_benchmark(file, without=["two"]).parts] == ["b-one"]
    with pytest.raises(UsageError, match="no training 'three' to leave out"):
        read_benchmark(file, without=["three"])
