"""What the jobs page reads, never cached: it shows what happens now."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd

from geofix.database.engine import connect
from geofix.database.queries import dashboard_jobs, workers
from geofix.settings import get_settings
from geofix_dashboard import data

TRAININGS = ("train", "train_classifier")
_NO_PERCENT = ("epoch", "step", "main", "kappa", "loss", "median_km", "typical_km")
_EPOCH = re.compile(r"epoch (\d+) of \d+: (.*)")
_TERM = re.compile(r"([A-Za-z_]+) (-?\d+(?:\.\d+)?(?:e-?\d+)?)(?= |$)")
_MOST_BYTES = 20_000_000


def overview() -> tuple[dict[str, int], pd.DataFrame, list[dict[str, Any]]]:
    """Jobs by state, queues, and worker processes."""
    with connect("reader") as conn:
        return dashboard_jobs.state_counts(conn), dashboard_jobs.queues(conn), workers.list_workers(conn)


def recent(state: str | None, kind: str | None, offset: int) -> pd.DataFrame:
    """One page of jobs."""
    with connect("reader") as conn:
        return dashboard_jobs.recent(conn, state, kind, offset=offset)


def kinds() -> list[str]:
    """Kinds of which there are jobs."""
    with connect("reader") as conn:
        return list(dashboard_jobs.kinds(conn)["kind"])


def log(job_id: UUID, progress: bool) -> pd.DataFrame:
    """The newest events of a job."""
    with connect("reader") as conn:
        return dashboard_jobs.log(conn, job_id, progress=progress)


def parts(job_id: UUID) -> pd.DataFrame:
    """Stages or chunks of a job."""
    with connect("reader") as conn:
        return dashboard_jobs.parts(conn, job_id)


def losses(job_id: UUID) -> pd.DataFrame:
    """Loss terms by epoch from the messages of a training: columns epoch, term, value."""
    with connect("reader") as conn:
        rows = dashboard_jobs.epochs(conn, job_id)
    found: dict[tuple[int, str], float] = {}
    for message in rows["message"]:
        match = _EPOCH.match(message)
        if match:
            for name, value in _TERM.findall(match[2]):
                found[int(match[1]), name] = float(value)
    return pd.DataFrame([(e, t, v) for (e, t), v in found.items()], columns=["epoch", "term", "value"])


def validation(specification: dict[str, Any], result: dict[str, Any] | None) -> pd.DataFrame:
    """Validation by epoch from the epochs.jsonl of a training's folder; columns epoch, measure, value.

    Empty where the folder is on another machine or the training has not come so far.
    """
    for path in _histories(specification, result):
        try:
            if path.is_file() and path.stat().st_size < _MOST_BYTES:
                return _read(path)
        except OSError:
            continue
    return _read(None)


def _histories(specification: dict[str, Any], result: dict[str, Any] | None) -> list[Path]:
    if "out" in specification and specification.get("kind", "train") in TRAININGS:
        return [Path(specification["out"]) / "epochs.jsonl"]
    trained = [
        str(stage["result"]["model"])
        for stage in (result or {}).get("stages", [])
        if isinstance(stage.get("result"), dict)
        and "epochs" in stage["result"]
        and stage["result"].get("model")
    ]
    home = get_settings().home_dir / "training"
    return [
        path for name in trained for path in sorted(home.glob(f"*/{name.replace('/', '_')}/epochs.jsonl"))
    ]


def _read(path: Path | None) -> pd.DataFrame:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path is not None else []:
        try:
            document = json.loads(line)
        except ValueError:  # the line that is being written
            continue
        rows += [
            (int(document["epoch"]), f"within {name} km" if name[0].isdigit() else name, float(value))
            for name, value in document.items()
            if name not in _NO_PERCENT and isinstance(value, int | float)
        ]
    return pd.DataFrame(rows, columns=["epoch", "measure", "value"])


def suggestions() -> dict[str, list[str]]:
    """Values that exist, by parameter name."""
    sets = data.table("datasets")
    codes = list(data.table("code_sets")["name"])
    snapshots = list(data.table("snapshots")["uri"])
    names = {kind: list(sets.loc[sets["kind"] == kind, "name"]) for kind in ("photos", "aerial")}
    regions = [
        f"{level}:{row.code}"
        for level in data.table("region_levels")["level"]
        for row in data.table("regions", level).head(200).itertuples()
    ]
    return {
        "model": list(data.table("models")["name"]),
        "code_set": codes,
        "snapshot": snapshots,
        "datasets": [*names["photos"], *names["aerial"]],
        "dataset": names["photos"],
        "aerial": names["aerial"],
        "source": names["aerial"],
        "region": regions,
        "within": regions,
        "localizer": localizers(),
    }


def localizers() -> list[str]:
    """Names of all localizers: those of code sets by recipe, then those that are fitted or trained."""
    from geofix.localizers.code_set import NAMES
    from geofix.localizers.fit import FITTED

    return list(dict.fromkeys([*sorted(NAMES.values()), *FITTED]))
