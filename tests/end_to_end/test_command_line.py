"""What scripts rely on: help with an example, the promised JSON and nothing beside it, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import ROOT, document, environment, geofix

from geofix.cli.main import app, main
from geofix.settings import get_settings


def walk(group: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with its words."""
    found = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            found += walk(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


COMMANDS = dict(walk(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_its_own_parser_takes(path):
    command = COMMANDS[path]
    about, _, example = (command.help or "").partition("Example: ")
    assert len(about.strip()) > 20 and example, f"geofix {' '.join(path)} has no text or no example"
    words = shlex.split(example)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    assert words[: len(path) + 1] == ["geofix", *path]
    command.make_context(path[-1], words[len(path) + 1 :])
    assert all(option.help for option in command.params if option.name != "help")


def test_every_command_that_answers_takes_json():
    silent = {("worker",), ("beat",), ("dashboard",)}
    for path, command in COMMANDS.items():
        assert path in silent or any("--json" in option.opts for option in command.params), path


class World:
    """A home with the tiny world in it, built step by step, and what every step printed."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.said = root, root / "home", {}

    def ask(self, *arguments: str) -> Any:
        """Run a command with --json; its words up to the first option or path name what it said."""
        self.said[" ".join(arguments[:2])] = answer = document(self.home, *self.placed(*arguments))
        return answer

    def placed(self, *arguments: str) -> tuple[str, ...]:
        """Arguments with @ in place of the root."""
        return tuple(word.replace("@", f"{self.root}/") for word in arguments)

    def build(self) -> None:
        """From nothing to evaluations."""
        self.ask("up")
        self.ask("db", "migrate")
        self.ask("world", "create", "@world", "--size", "tiny", "--seed", "1")
        self.ask(
            *("ingest", "regions", "@world/regions.gpkg", "--level", "country"),
            *("--code-field", "iso_a3", "--name-field", "name"),
        )
        self.ask(
            "ingest", "photos", "@world/photos", "--metadata", "@world/photos.csv", "--dataset", "photos"
        )
        self.ask(
            *("ingest", "aerial", "@world/aerial/2023-04-21", "--source", "ortho"),
            *("--captured-at", "2023-04-21", "--tiles-level", "15", "--side-m", "300"),
        )
        self.ask("snapshot", "build", "--dataset", "photos", "--out", "@snap", "--test", "0.2")
        self.ask("models", "create", "@model", "--trunk", "mobilenetv3_small_050", "--size", "64")
        self.ask("models", "register", "@model", "--name", "m")
        self.ask("embed", "photos", "--model", "m")
        self.ask("codes", "build", "--model", "m", "--code-set", "cells", "--snapshot", "@snap")
        for name, localizer in (
            ("a", ("cellmean", "--code-set", "cells")),
            ("b", ("knn", "--model", "m")),
        ):
            self.ask("evaluate", "run", "--localizer", *localizer, "--snapshot", "@snap", "--name", name)

    @property
    def photo(self) -> str:
        """One of its photos."""
        return str(min((self.root / "world" / "photos").rglob("*.jpg")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    """One home for all tests of this file."""
    made = World(tmp_path_factory.mktemp("gf"))
    try:
        made.build()
        yield made
    finally:
        geofix(made.home, "down")


PROMISED = {
    "world create": {"photos", "aerial_rasters", "regions", "bytes"},
    "ingest photos": {"loaded", "unchanged", "rejected", "rejects"},
    "ingest aerial": {"rasters", "rejected"},
    "ingest regions": {"loaded", "repaired", "rejected"},
    "snapshot build": {"photos", "cells", "sha256"},
    "embed photos": {"embedded", "skipped", "failed", "per_second"},
    "codes build": {"cells", "with_prototype", "with_aerial", "kappa", "bytes"},
    "evaluate run": {
        *("evaluation", "n", "recall", "accuracy_km", "median_m", "mean_km", "geoscore", "oracle"),
    },
}


def test_every_step_printed_the_promised_keys(world):
    for step, keys in PROMISED.items():
        assert keys <= set(world.said[step]), step
    assert set(world.said["snapshot build"]["photos"]) == {"train", "val", "test_seen", "test_unseen"}
    assert world.said["world create"]["photos"] == world.said["ingest photos"]["loaded"] == 300
    assert world.said["ingest regions"]["loaded"] == world.said["world create"]["regions"] == 3
    run = world.said["evaluate run"]
    assert all(set(run["recall"][k]) == {"50", "100", "200", "1000"} for k in ("1", "5"))
    assert set(run["accuracy_km"]) == {"1", "25", "200", "750", "2500"}
    assert run["n"] == world.said["snapshot build"]["photos"]["test_seen"] > 0


def test_status_names_the_servers(world):
    status = world.ask("status")
    assert status["workers"] == []
    assert {"state", "url", "postgres", "postgis", "pgvector"} <= set(status["database"])
    assert status["database"]["state"] == status["broker"]["state"] == "running"
    assert "password" not in json.dumps(status).lower()


def test_a_photo_gets_candidates_probabilities_and_regions(world):
    ask = ("localize", world.photo, "--code-set", "cells")
    (answer,) = document(world.home, *ask)
    promised = {"photo", "position", "candidates", "credible", "search", "in_coverage", "confidence_200m"}
    assert promised <= set(answer) and answer["photo"] == world.photo
    assert set(answer["position"]) == {"lon", "lat"}
    keys = {"rank", "s2_token", "lon", "lat", "score", "probability", "region"}
    assert len(answer["candidates"]) == 10 and answer["search"]["cells_in_scope"] > 10
    assert keys <= set(answer["candidates"][0])
    assert 0 < answer["candidates"][0]["probability"] <= 1
    assert answer["credible"]["90"]["geojson"]["type"] in ("Polygon", "MultiPolygon")
    assert answer["search"]["method"] in ("exact", "hnsw")
    lon, lat = answer["position"]["lon"], answer["position"]["lat"]
    file = world.root / "box.geojson"
    ring = [[lon - 0.1, lat - 0.1], [lon + 0.1, lat - 0.1], [lon, lat + 0.1], [lon - 0.1, lat - 0.1]]
    file.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (inside,) = document(world.home, *ask, "--within", str(file), "-k", "2")
    assert len(inside["candidates"]) == 2
    assert 0 < inside["search"]["cells_in_scope"] < answer["search"]["cells_in_scope"]


def test_evaluations_are_shown_listed_and_compared(world):
    rows = document(world.home, "evaluate", "show", "a", "--by", "country")
    assert sum(row["n"] for row in rows) == world.said["evaluate run"]["n"]
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    listed = document(world.home, "evaluate", "list")
    assert [row["evaluation"] for row in listed] == ["a", "b"]
    compared = document(world.home, "evaluate", "compare", "a", "b")["recall"]["200"]
    assert compared["difference"] == pytest.approx(compared["a"] - compared["b"])
    assert compared["low"] <= compared["difference"] <= compared["high"]


def test_another_tools_answers_are_judged_without_a_server(tmp_path):
    truth, answers = tmp_path / "truth.csv", tmp_path / "answers.csv"
    truth.write_text("id,lat,lon\na,10,20\nb,10,30\nc,50,30\nd,51,8\n")
    answers.write_text("name,y,x\na,10.001,20\nb,,\nc,95,30\n")
    columns = ("--columns", "pred_id=name,pred_lat=y", "--columns", "pred_lon=x")
    judged = document(tmp_path, "evaluate", "external", str(answers), "--truth", str(truth), *columns)
    keys = {"n", "missing", "out_of_range", "accuracy_km", "mean_km", "median_km", "geoscore"}
    assert keys <= set(judged)
    assert (judged["n"], judged["missing"], judged["out_of_range"]) == (4, 2, 1)
    assert judged["accuracy_km"]["1"] == 25 and judged["median_km"] == pytest.approx(0.1112, abs=1e-4)


def test_sql_speaks_every_format(world):
    ask = ("sql", "SELECT photo_id, country_code, geom FROM photo ORDER BY photo_id LIMIT 3")
    assert [row["photo_id"] for row in document(world.home, *ask)["rows"]] == [1, 2, 3]
    lines = geofix(world.home, *ask, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("photo_id,country_code") and len(lines) == 4
    collection = json.loads(geofix(world.home, *ask, "--format", "geojson").stdout)
    assert [f["geometry"]["type"] for f in collection["features"]] == ["Point"] * 3
    file = world.root / "three.parquet"
    written = document(world.home, *ask, "--out", str(file))
    assert written["rows"] == 3 and file.stat().st_size == written["bytes"]
    big = geofix(world.home, "sql", "SELECT s2_id FROM photo LIMIT 1").stdout
    assert re.search(r"^ *-?\d{15,}$", big, re.MULTILINE), "ids must be copied as they are"


def test_jobs_have_the_promised_shape(world):
    made = document(world.home, "jobs", "submit", "recall_check", "-p", "code_set=cells")
    shown = document(world.home, "jobs", "show", made["job"])
    promised = {"id", "kind", "state", "progress", "attempts", "submitted_at", "started_at", "finished_at"}
    assert promised | {"result", "error"} <= set(shown)
    assert set(shown["progress"]) == {"done", "total", "unit", "message", "eta_s"}
    assert shown["id"] == made["job"] and shown["state"] == "queued" and shown["kind"] == "recall_check"
    assert document(world.home, "jobs", "cancel", made["job"])["state"] == "cancelled"
    watched = geofix(world.home, "jobs", "watch", made["job"], "--json", code=5)
    assert json.loads(watched.stdout)["state"] == "cancelled"
    events = document(world.home, "jobs", "logs", made["job"])
    assert events[0]["message"] == "queued"


def test_a_dump_is_restored_elsewhere(world, tmp_path_factory):
    dump, home = world.root / "all.dump", tmp_path_factory.mktemp("gf")
    assert document(world.home, "db", "backup", str(dump))["bytes"] == dump.stat().st_size
    ask = ("sql", "SELECT count(*) AS n FROM prediction_top1")
    try:
        geofix(home, "up")
        geofix(home, "db", "restore", str(world.root / "world" / "photos.csv"), code=3)
        assert document(home, "db", "restore", str(dump))["restored"] == str(dump)
        assert document(home, *ask)["rows"] == document(world.home, *ask)["rows"]
        assert geofix(home, "db", "restore", str(dump), code=2).stderr.count("\n") == 1
    finally:
        geofix(home, "down")


WRONG = [
    (2, "no-such-command"),
    (2, "codes", "no-such-command"),
    (2, "codes", "build"),
    (2, "localize", "x.jpg", "--code-set", "cells", "-k", "0"),
    (2, "evaluate", "show", "a", "--by", "cell", "--level", "44"),
    (2, "jobs", "submit", "no-such-kind"),
    (2, "jobs", "list", "--state", "asleep"),
    (2, "sql", "DELETE FROM photo_record"),
    (2, "sql", "SELEC 1"),
    (2, "sql", ""),
    (2, "worker", "--queues", "fast"),
    (2, "world", "create", "@world", "--size", "tiny", "--seed", "4"),
    (2, "snapshot", "build", "--dataset", "photos", "--out", "@snap"),
    (2, "ingest", "photos", "@world/photos", "--dataset", "x", "--columns", "lat"),
    (3, "localize", "@missing.jpg", "--code-set", "cells"),
    (3, "localize", "@missing.jpg", "--code-set", "nothing"),
    (3, "evaluate", "show", "nothing"),
    (3, "evaluate", "show", "a", "--by", "planet"),
    (3, "evaluate", "external", "@world/photos.csv", "--truth", "@missing.csv"),
    (3, "ingest", "photos", "@missing", "--dataset", "x"),
    (3, "ingest", "regions", "@missing.gpkg", "--level", "l", "--code-field", "c", "--name-field", "n"),
    (3, "snapshot", "check", "@world"),
    (3, "codes", "drop", "nothing", "--yes"),
    (3, "delete", "photo", "999999"),
    (3, "jobs", "show", "ffffffff"),
    (3, "run", "@world/photos.csv"),
    (3, "db", "restore", "@world/photos.csv"),
]


@pytest.fixture
def here(clean_environment, monkeypatch, capsys):
    """Run a command in this process, in some home: exit code, stdout, stderr."""

    def run(home: Path, *arguments: str) -> tuple[Any, str, str]:
        clean_environment.setenv("GEOFIX_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["geofix", *arguments])
        get_settings.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(("code", "arguments"), [(w[0], w[1:]) for w in WRONG], ids=lambda v: str(v)[:60])
def test_a_mistake_is_one_line_and_its_exit_code(world, here, code, arguments):
    ended, said, errors = here(world.home, *world.placed(*arguments))
    assert (ended, said) == (code, ""), errors
    lines = [line for line in errors.splitlines() if line.startswith("error ")]
    assert len(lines) == 1 and "Traceback" not in errors, errors
    assert len(lines[0]) > 30 and not re.search(r"[a-z)]\.\.( |$)", lines[0])


@pytest.mark.parametrize(
    "arguments",
    [
        ("codes", "list"),
        ("sql", "SELECT 1"),
        ("db", "migrate"),
        ("db", "check"),
        ("jobs", "list"),
        ("ingest", "photos", str(ROOT), "--dataset", "x"),
    ],
    ids=" ".join,
)
def test_without_servers_the_exit_code_is_4(here, tmp_path, arguments):
    ended, said, errors = here(tmp_path / "empty", *arguments, "--json")
    assert (ended, said) == (4, ""), errors
    assert errors.count("\n") == 1 and "geofix up" in errors


def test_a_setting_that_cannot_be_is_named(tmp_path):
    done = geofix(tmp_path, "status", code=2, GEOFIX_SQL_TIMEOUT_S="soon")
    assert "GEOFIX_SQL_TIMEOUT_S='soon'" in done.stderr and done.stderr.count("\n") == 1


def test_debug_adds_the_traceback(tmp_path):
    done = geofix(tmp_path, "--debug", "codes", "list", code=4)
    assert "Traceback" in done.stderr and done.stdout == ""


def test_an_interrupt_ends_with_130_and_the_work_can_go_on(tmp_path):
    line = [sys.executable, "-m", "geofix.cli", "world", "create", str(tmp_path / "w"), "--size", "study"]
    with subprocess.Popen(
        line,
        env=environment(tmp_path),
        stdout=-1,
        stderr=-1,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        # A test run in the background of a shell ignores SIGINT, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "w" / "world.json").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            said, errors = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and said == ""
    assert "interrupted" in errors and "Traceback" not in errors


def test_a_reader_that_leaves_early_hears_no_complaint(world):
    line = [sys.executable, "-m", "geofix.cli", "sql", "SELECT generate_series(1, 100000)", "--format", "csv"]
    with subprocess.Popen(
        line, env=environment(world.home), stdout=-1, stderr=-1, text=True, cwd=ROOT
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "generate_series\n"
        run.stdout.close()
        assert "Traceback" not in (errors := run.stderr.read()) and "BrokenPipe" not in errors
        assert run.wait(timeout=120) == 0
