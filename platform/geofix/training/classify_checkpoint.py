"""Checkpoints of a classifier's training: written whole or not at all, refused where they do not belong."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from geofix.errors import NotFoundError
from geofix.training.checkpoint import (
    DamagedCheckpointError,
    OtherRunError,
    check_encoders,
    told_encoders,
)
from geofix.training.classify_run import ClassifierRun
from geofix.training.state import Clock

NAME = "checkpoint.pt"
FORMAT = 1
# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_FREE = ("workers", "threads", "checkpoint_minutes", "memory_gb")


def write_checkpoint(run: ClassifierRun) -> None:
    """Write everything that changes, beside its place first; the partitions follow from the snapshot."""
    described = {
        "format": FORMAT,
        "config": run.config.model_dump(mode="json"),
        "encoders": told_encoders({"encoder": run.network.encoder.config}),
        "snapshot_sha256": run.snapshot.sha256,
        "clock": asdict(run.clock),
    }
    content: dict[str, Any] = {
        "description": json.dumps(described),
        "network": run.network.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        content["random_cuda"] = torch.cuda.get_rng_state_all()
    path = run.out / NAME
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_checkpoint(run: ClassifierRun) -> None:
    """Put a checkpoint's content into a run that was prepared alike.

    Raises:
        NotFoundError: There is no checkpoint.
        DamagedCheckpointError: It cannot be read.
        OtherRunError: It was written by a run of another snapshot, configuration or input; the message names
            what differs.
    """
    path = run.out / NAME
    if not path.is_file():
        raise NotFoundError(f"No checkpoint at {path}.", hint="Leave --resume out to begin a new run.")
    try:
        content = torch.load(path, map_location=run.device, weights_only=True)
        described = json.loads(content["description"])
        _check(run, path, described)
        run.network.load_state_dict(content["network"])
        run.optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(
            f"{path} cannot be read: {first[:200]}.", hint="Begin again without --resume, in a new directory."
        ) from error
    torch.set_rng_state(content["random"].cpu())
    if torch.cuda.is_available() and "random_cuda" in content:
        torch.cuda.set_rng_state_all([item.cpu() for item in content["random_cuda"]])
    clock = described["clock"]
    best = clock.pop("best")
    run.clock = Clock(**clock, best=None if best is None else (float(best[0]), int(best[1])))


def _check(run: ClassifierRun, path: Path, described: dict[str, Any]) -> None:
    if described.get("format") != FORMAT:
        raise DamagedCheckpointError(
            f"{path} has format {described.get('format')}; this version reads {FORMAT}."
        )
    theirs, ours = described["snapshot_sha256"], run.snapshot.sha256
    if theirs != ours:
        raise OtherRunError(
            f"{path} belongs to snapshot {theirs[:12]}, not {ours[:12]}.",
            hint="Resume with the snapshot it was begun with, or train anew in another directory.",
        )
    wanted, written = run.config.model_dump(mode="json"), described["config"]
    differing = sorted(
        key
        for key in wanted.keys() | written.keys()
        if key not in _FREE and wanted.get(key) != written.get(key)
    )
    if differing:
        named = ", ".join(f"{key} {written.get(key)!r} -> {wanted.get(key)!r}" for key in differing[:5])
        raise OtherRunError(
            f"{path} was written with another configuration: {named}.",
            hint="Resume with the configuration it was begun with, or train anew in another directory.",
        )
    check_encoders(path, described, {"encoder": run.network.encoder.config})
