"""Checkpoints: written whole or not at all, read without pickle, refused where they do not belong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.log import get_logger
from geofix.models.config import EncoderConfig
from geofix.training.config import TrainingConfig
from geofix.training.distributed import Team
from geofix.training.state import Clock, State

_log = get_logger(__name__)


class OtherRunError(UsageError):
    """A checkpoint was written by a run of another configuration, snapshot or number of processes."""


class DamagedCheckpointError(BadInputError):
    """A checkpoint is no whole file of this version, or there is no step that all ranks have one of."""


NAME = "checkpoint.pt"
FORMAT = 1
_KEYS = {"prototypes": ("table", "rows"), "tiles": ("proxies", "proxy_rows")}
# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_FREE = ("workers", "threads", "checkpoint_minutes", "compile")


def checkpoint_path(out: Path, team: Team) -> Path:
    """Where a rank's checkpoint lies: the leader's is the run's, the others' hold their rows."""
    return out / (NAME if team.leads else f"checkpoint-rank{team.rank}.pt")


def previous_path(path: Path) -> Path:
    """Where the checkpoint before a rank's last one lies while not all ranks have their last one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_checkpoint(path: Path) -> bool:
    """Whether a rank has a checkpoint, its last one or the one before."""
    return path.exists() or previous_path(path).exists()


def write_checkpoint(
    path: Path, state: State, config: TrainingConfig, snapshot_sha256: str, team: Team
) -> None:
    """Write a checkpoint beside its place and rename it there; under torchrun every rank writes its own.

    It holds weights, optimisers, running means, random state, clock, configuration (with the resolved input
    transforms inside the encoders' own) and the snapshot's hash. All ranks must call it at the same step.
    They rename when all have written, and each keeps its last one until all have renamed: whenever they are
    killed, there is a step that all of them have a checkpoint of.
    """
    described = {
        "format": FORMAT,
        "config": config.model_dump(mode="json", by_alias=True),
        "encoders": told_encoders({role: network.config for role, network in state.networks.items()}),
        "snapshot_sha256": snapshot_sha256,
        "clock": asdict(state.clock),
    }
    content: dict[str, Any] = {
        "description": json.dumps(described),
        "networks": {role: net.state_dict() for role, net in state.networks.items()},
        "optimiser": state.optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    for half, (table, rows) in state.tables.items():
        table_key, rows_key = _KEYS[half]
        content |= {table_key: table.state_dict(), rows_key: rows.state_dict()}
    if state.average is not None:
        content["average"] = state.average
    if torch.cuda.is_available():
        content["random_cuda"] = torch.cuda.get_rng_state_all()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        team.wait()
        if team.size > 1 and path.exists():
            path.replace(previous_path(path))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    team.wait()
    previous_path(path).unlink(missing_ok=True)


def clear_unfinished(path: Path) -> None:
    """Remove what processes that were killed while they wrote this checkpoint left beside it."""
    for beside in path.parent.glob(f".{path.name}.*"):
        beside.unlink(missing_ok=True)


def read_checkpoint(
    path: Path, state: State, config: TrainingConfig, snapshot_sha256: str, team: Team
) -> None:
    """Put a checkpoint's content into a state that was made for the same run: the newest that all ranks have.

    Raises:
        NotFoundError: There is no checkpoint.
        DamagedCheckpointError: It cannot be read, or there is no step that all ranks have one of.
        OtherRunError: It was written by a run of another snapshot, configuration, input or number of
            processes; the message names what differs.
    """
    file = _agreed(path, team)
    content, described = _read(file, state.device)
    _check(path, described, config, snapshot_sha256)
    check_encoders(path, described, {role: network.config for role, network in state.networks.items()})
    for role, network in state.networks.items():
        network.load_state_dict(content["networks"][role])
    state.optimiser.load_state_dict(content["optimiser"])
    for half, (table, rows) in state.tables.items():
        table_key, rows_key = _KEYS[half]
        held, needed = len(content[table_key]["weight"]), len(table.weight)
        if held != needed:
            raise OtherRunError(
                f"{path} holds {held} prototypes, this process needs {needed} of {len(table)}.",
                hint="Resume with as many processes as the run was begun with.",
            )
        table.load_state_dict(content[table_key])
        rows.load_state_dict(content[rows_key])
    if state.average is not None:
        state.average = content["average"]
    torch.set_rng_state(content["random"].cpu())
    if torch.cuda.is_available() and "random_cuda" in content:
        torch.cuda.set_rng_state_all([item.cpu() for item in content["random_cuda"]])
    clock = described["clock"]
    best = clock.pop("best")
    state.clock = Clock(**clock, best=None if best is None else (float(best[0]), int(best[1])))
    if file != path:
        # What lies there is newer, but not all have it. It must not push this one out at the next writing.
        _log.warning("not all processes wrote the last checkpoint: the one before is used", path=str(path))
        file.replace(path)
    previous_path(path).unlink(missing_ok=True)


def _agreed(path: Path, team: Team) -> Path:
    """This rank's file of the newest checkpoint that all ranks have."""
    files = [file for file in (path, previous_path(path)) if file.is_file()]
    if not files:
        raise NotFoundError(f"No checkpoint at {path}.", hint="Leave --resume out to begin a new run.")
    if team.size == 1:
        return files[0]
    found: dict[int, Path] = {}
    faults = []
    for file in files:
        try:
            # Mapped, not read: of the one that is agreed on alone more than this is needed.
            found.setdefault(_moment(_read(file, torch.device("cpu"), mapped=True)[1]), file)
        except DamagedCheckpointError as error:
            faults.append(error)
    moment = team.newest(sorted(found))
    if faults and not found:
        raise faults[0]
    if moment is None:
        steps = " and ".join(str(each // 2) for each in sorted(found))
        raise DamagedCheckpointError(
            f"{path} is of step {steps}, the checkpoint of another process is of another step.",
            hint="One was copied or lost; begin again without --resume, in a new directory.",
        )
    return found[moment]


def _read(path: Path, device: torch.device, *, mapped: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """A file's content and description."""
    try:
        content = torch.load(path, map_location=device, weights_only=True, mmap=mapped or None)
        return content, json.loads(content["description"])
    except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(
            f"{path} cannot be read: {first[:200]}.", hint="Begin again without --resume, in a new directory."
        ) from error


def _moment(described: dict[str, Any]) -> int:
    """When a checkpoint was written: after the last step of an epoch there may be one before its end."""
    clock = described.get("clock", {})
    return 2 * int(clock.get("step", 0)) + int(clock.get("place", 0) == 0)


def told_encoders(configs: Mapping[str, EncoderConfig]) -> dict[str, Any]:
    """Encoders as a checkpoint describes them, with what was resolved for them."""
    told: dict[str, Any] = json.loads(
        json.dumps({role: config.model_dump(mode="json") for role, config in configs.items()})
    )
    return told


def check_encoders(path: Path, described: dict[str, Any], configs: Mapping[str, EncoderConfig]) -> None:
    """Refuse a checkpoint whose encoders saw another input, or began at other weights.

    Both are resolved when a run begins: the input from timm's description of the trunk where the
    configuration leaves it out, the weights' hash from the file.

    Raises:
        OtherRunError: They differ; the message names what does.
    """
    resolved = ("input", "weights_sha256")

    def chosen(encoders: Mapping[str, Any]) -> dict[str, Any]:
        return _flat({role: {key: told.get(key) for key in resolved} for role, told in encoders.items()})

    written, wanted = chosen(described.get("encoders", {})), chosen(told_encoders(configs))
    # Checkpoints of classifiers did not always describe their encoder.
    differing = [key for key in written if key in wanted and written[key] != wanted[key]]
    if differing:
        named = ", ".join(f"{key} {written[key]!r} -> {wanted[key]!r}" for key in differing[:5])
        raise OtherRunError(
            f"{path} was written by encoders of another input or other weights: {named}.",
            hint="Resume with the weights and the timm it was begun with, or set the encoder's size, fit, "
            "mean and std in a new run.",
        )


def _check(path: Path, described: dict[str, Any], config: TrainingConfig, snapshot_sha256: str) -> None:
    if described.get("format") != FORMAT:
        raise DamagedCheckpointError(
            f"{path} has format {described.get('format')}; this version reads {FORMAT}."
        )
    if described["snapshot_sha256"] != snapshot_sha256:
        raise OtherRunError(
            f"{path} belongs to snapshot {described['snapshot_sha256'][:12]}, not {snapshot_sha256[:12]}.",
            hint="Resume with the snapshot it was begun with, or train anew in another directory.",
        )
    wanted = _flat(config.model_dump(mode="json", by_alias=True))
    written = _flat(described["config"])
    differing = sorted(
        key
        for key in wanted.keys() | written.keys()
        if key.split(".")[0] not in _FREE and wanted.get(key) != written.get(key)
    )
    if differing:
        named = ", ".join(f"{key} {written.get(key)!r} -> {wanted.get(key)!r}" for key in differing[:5])
        raise OtherRunError(
            f"{path} was written with another configuration: {named}.",
            hint="Resume with the configuration it was begun with, or train anew in another directory.",
        )


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return out
