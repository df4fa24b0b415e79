"""Finished stages of pipelines, and whether what they made is still there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from geofix.database.engine import Connection

FIND = "SELECT inputs_sha256, result, seconds FROM geofix.stage_run WHERE pipeline = %(pipeline)s AND stage = %(stage)s"
STORE = """
INSERT INTO geofix.stage_run (pipeline, stage, inputs_sha256, result, seconds)
VALUES (%(pipeline)s, %(stage)s, %(inputs)s, %(result)s, %(seconds)s)
ON CONFLICT (pipeline, stage) DO UPDATE SET inputs_sha256 = excluded.inputs_sha256, result = excluded.result,
  seconds = excluded.seconds, finished_at = now()
"""
FORGET = "DELETE FROM geofix.stage_run WHERE pipeline = %(pipeline)s AND stage = ANY (%(stages)s)"
EXISTS = {
    "dataset": "SELECT 1 FROM geofix.dataset WHERE name = %(name)s",
    "model": "SELECT 1 FROM geofix.model WHERE name = %(name)s",
    "model_id": "SELECT 1 FROM geofix.model WHERE model_id::text = %(name)s",
    "snapshot": "SELECT 1 FROM geofix.snapshot WHERE sha256 = %(name)s",
    "code_set": "SELECT 1 FROM geofix.code_set WHERE name = %(name)s AND state = 'ready'",
    "evaluation": "SELECT 1 FROM geofix.evaluation WHERE name = %(name)s",
}


@dataclass(frozen=True)
class StageRun:
    """The last finished run of a stage."""

    inputs_sha256: str
    result: dict[str, Any]
    seconds: float


def find(conn: Connection, pipeline: str, stage: str) -> StageRun | None:
    """The last finished run of a stage, if any."""
    row = conn.execute(FIND, {"pipeline": pipeline, "stage": stage}).fetchone()
    return None if row is None else StageRun(*row)


def store(
    conn: Connection, pipeline: str, stage: str, inputs: str, result: Mapping[str, Any], seconds: float
) -> None:
    """Remember that a stage finished."""
    conn.execute(
        STORE,
        {
            "pipeline": pipeline,
            "stage": stage,
            "inputs": inputs,
            "result": Jsonb(dict(result)),
            "seconds": seconds,
        },
    )


def forget(conn: Connection, pipeline: str, stages: Sequence[str]) -> None:
    """Stages that are about to be made anew count as never run until they have finished."""
    conn.execute(FORGET, {"pipeline": pipeline, "stages": list(stages)})


def outputs_exist(conn: Connection, outputs: Iterable[Sequence[str]]) -> bool:
    """Whether every (kind, name) that a stage made is still there; kind `file` is a path on disk."""
    for kind, name in outputs:
        if kind == "file":
            if not Path(name).exists():
                return False
        elif conn.execute(EXISTS[kind], {"name": name}).fetchone() is None:
            return False
    return True
