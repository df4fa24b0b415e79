"""A pipeline file as jobs, one per stage: what `geofix demo` queues, watches and takes up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from job_helpers import Workers, wait_for
from photographed import streets

from geofix.cli.stages import follow, require_all
from geofix.database.engine import connect
from geofix.errors import JobFailedError
from geofix.jobs import runner, service
from geofix.jobs.run_stage import staged
from geofix.pipeline.run import run_pipeline
from geofix.settings import get_settings
from servers import Database

OWN_WORKERS = "import time; from geofix.cli.demo import _workers\nwith _workers(): time.sleep(600)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    root = streets(tmp_path / "photos")
    stages = [
        {
            "do": "ingest_photos",
            "path": str(root),
            "metadata": str(root / "metadata.csv"),
            "dataset": "${name}",
        },
        {"do": "cells", "levels": [13]},
        {"do": "snapshot", "datasets": ["${name}"], "test": 0.3, "val": 0.2},
    ]
    path = tmp_path / "little.yaml"
    path.write_text(yaml.safe_dump({"name": "${name}", "stages": stages}))
    return path


def nobody_dies() -> None:
    """Workers that are there."""


def test_a_pipeline_of_stages_is_the_pipeline(db: Database, timing: None, file: Path) -> None:
    home, variables = get_settings().home_dir, {"name": "little"}
    row = runner.run_inline(service.submit(staged(file, home, variables), publish=False).job_id)
    assert row.state == "succeeded", row.error
    names = ["01-ingest_photos", "02-cells", "03-snapshot"]
    found = [row.result["results"][name] for name in names]
    assert [item["stage"] for item in found] == names and not any(item["skipped"] for item in found)
    summary = json.loads((home / "runs" / "little" / "summary.json").read_text())
    assert summary["01-ingest_photos"]["loaded"] == 72 and list(summary) == names
    assert all(item.skipped for item in run_pipeline(file, variables=variables))
    again = runner.run_inline(service.submit(staged(file, home, variables), publish=False).job_id)
    assert all(item["skipped"] for item in again.result["results"].values())


def test_files_stay_in_the_home_of_whoever_asked(
    db: Database, timing: None, file: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    row = runner.run_inline(service.submit(staged(file, asked, {"name": "l"}), publish=False).job_id)
    assert row.state == "succeeded", row.error
    assert (asked / "runs" / "l" / "snapshot").is_dir() and (asked / "runs" / "l" / "summary.json").is_file()
    assert not (get_settings().home_dir / "runs").exists()


def test_it_is_watched_on_workers_and_joined_while_it_runs(
    queue: Database, workers: Workers, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = staged(file, get_settings().home_dir, {"name": "little"})
    job, is_old = service.join(asked)
    twin, is_joined = service.join(asked)
    assert (is_old, is_joined) == (False, True) and twin.job_id == job.job_id
    service.pause(job.job_id)
    assert service.join(asked)[0].state == "queued"  # what was paused goes on
    workers.start("all", "cpu,gpu", "1", "beat")
    rows = follow(job, nobody_dies)
    require_all(job, rows, "log")
    assert [row.result["stage"][:2] for row in rows] == ["01", "02", "03"]
    shown = capsys.readouterr().err
    assert "01-ingest_photos: running, job " in shown and "03-snapshot: done in " in shown
    new, is_old = service.join(asked)
    assert not is_old and new.job_id != job.job_id
    require_all(new, follow(new, nobody_dies), "log")
    assert capsys.readouterr().err.count("stage unchanged") == 3


def test_a_stage_that_fails_is_named_with_its_log(db: Database, timing: None, file: Path) -> None:
    told = yaml.safe_load(file.read_text())
    told["stages"][2]["datasets"] = ["nowhere"]
    told["stages"].append({"do": "cells", "levels": [12]})
    file.write_text(yaml.safe_dump(told))
    job = service.submit(staged(file, get_settings().home_dir, {"name": "little"}), publish=False)
    runner.run_inline(job.job_id)
    rows = follow(job, nobody_dies)
    assert [row.state for row in rows] == ["succeeded"] * 2 + ["failed"] * 2
    with pytest.raises(JobFailedError, match=r"Stage 03-snapshot is failed: .*nowhere") as error:
        require_all(job, rows, "/the/log")
    assert f"geofix jobs logs {rows[2].job_id}" in str(error.value) and "/the/log" in str(error.value)
    assert not service.join(staged(file, get_settings().home_dir, {"name": "little"}))[1]


def test_the_workers_of_a_demo_end_with_it_even_when_it_is_killed(queue: Database) -> None:
    def rows() -> int:
        with connect("writer") as conn:
            return conn.execute("SELECT count(*) FROM worker").fetchone()[0]

    process = subprocess.Popen([sys.executable, "-c", OWN_WORKERS], env=dict(os.environ))
    try:
        wait_for(lambda: rows() >= 2, "a worker of each queue", 240)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: rows() == 0, "the workers' end", 60)
