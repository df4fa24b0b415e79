"""A model as a directory: `model.json` and `weights.safetensors`, written all or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geofix.errors import BadInputError, NotFoundError, ServiceError, UsageError
from geofix.models.encoder import Encoder, build_encoder
from geofix.models.manifest import MANIFEST, WEIGHTS, ModelManifest, read_manifest


@dataclass
class Model:
    """Encoders by role, with named tensors beside them (prototypes and the like).

    Attributes:
        name: How the model is called in the database.
        encoders: By role: 'ground' always, 'aerial' where there is one. Two roles may share one encoder.
        tensors: Anything else that was learned, by name.
        metadata: JSON: snapshot hash, training configuration, figures on the validation set.
        sha256: Of the weights file this model was read from or written to; it identifies embeddings.
    """

    name: str
    encoders: dict[str, Encoder]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def encoder(self, role: str) -> Encoder:
        """The encoder of a role.

        Raises:
            NotFoundError: The model has no encoder for it.
        """
        if role not in self.encoders:
            known = ", ".join(sorted(self.encoders))
            raise NotFoundError(f"model {self.name} has no {role} encoder.", hint=f"It has: {known}.")
        return self.encoders[role]


def choose_device(setting: str = "auto") -> torch.device:
    """Turn the `device` setting into a device that exists.

    Args:
        setting: 'auto' (CUDA where there is any, else CPU), 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        UsageError: The text names no device.
        ServiceError: CUDA was asked for and is not there.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(setting)
    except RuntimeError as error:
        raise UsageError(f"device {setting!r} is unknown.", hint="Use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {setting!r} is not supported.", hint="Use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ServiceError(
            f"device {setting!r} was asked for, and this machine has {count} CUDA devices.",
            hint="Set GEOFIX_DEVICE=cpu or auto.",
        )
    return device


def save_model(
    model: Model,
    directory: Path,
    *,
    overwrite: bool = False,
    beside: Callable[[Path], None] | None = None,
) -> ModelManifest:
    """Write a model directory; whatever happens, the old one or the new one is whole.

    A process killed between the two renames leaves the old one beside it as `.NAME.old`.

    Args:
        model: What to write. Its `sha256` is set to that of the weights file.
        directory: Created; its parent must exist or can be made.
        overwrite: Replace an existing model directory, or an empty one.
        beside: Writes what else belongs to the model into the new directory before it takes its place.

    Raises:
        UsageError: The directory exists and `overwrite` is False, or it holds something else than a model.
    """
    directory = directory.resolve()
    if directory.exists() and not overwrite:
        raise UsageError(
            f"{directory} exists already.", hint="Choose another directory, or replace it with --overwrite."
        )
    if directory.exists() and not _replaceable(directory):
        raise UsageError(
            f"{directory} holds something else than a model; it is not replaced.",
            hint="Choose another directory.",
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        manifest = _write(model, work)
        if beside is not None:
            beside(work)
        _replace(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    model.sha256 = manifest.weights_sha256
    return manifest


def load_model(directory: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model directory, check its hash, and put the encoders in evaluation mode on a device.

    Raises:
        NotFoundError: There is no model in the directory.
        BadInputError: The weights are damaged or do not belong to the description.
    """
    manifest = read_manifest(directory)
    path = directory / WEIGHTS
    found = _sha256(path)
    if found != manifest.weights_sha256:
        raise BadInputError(
            f"{path} has sha256 {found}, {MANIFEST} says {manifest.weights_sha256}.",
            hint="Copy the model directory again, or train it again.",
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise BadInputError(f"{path} is damaged: {error}.", hint="Copy the model directory again.") from error
    encoders = _build_encoders(manifest, tensors, torch.device(device))
    prefixes = tuple(f"{role}." for role in manifest.encoders)
    rest = {k: v for k, v in tensors.items() if not k.startswith(prefixes)}
    return Model(manifest.name, encoders, rest, manifest.metadata, found)


def _build_encoders(
    manifest: ModelManifest, tensors: dict[str, Tensor], device: torch.device
) -> dict[str, Encoder]:
    encoders: dict[str, Encoder] = {}
    for role, config in manifest.encoders.items():
        encoder = build_encoder(config, load_weights=False)
        state = {k.removeprefix(f"{role}."): v for k, v in tensors.items() if k.startswith(f"{role}.")}
        try:
            encoder.load_state_dict(state)
        except RuntimeError as error:
            raise BadInputError(
                f"weights of model {manifest.name} do not fit its {role} encoder: {error}.",
                hint="The directory was edited, or written with an incompatible timm.",
            ) from error
        encoders[role] = encoder.to(device).eval()
    for role, other in manifest.shares.items():
        encoders[role] = encoders[other]
    return encoders


def _write(model: Model, work: Path) -> ModelManifest:
    owners: dict[int, str] = {}
    shares: dict[str, str] = {}
    for role, encoder in model.encoders.items():
        first = owners.setdefault(id(encoder), role)
        if first != role:
            shares[role] = first
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.tensors.items()}
    for role in owners.values():
        state = model.encoders[role].state_dict()
        tensors |= {f"{role}.{k}": v.detach().cpu().contiguous() for k, v in state.items()}
    save_file(tensors, work / WEIGHTS)
    try:
        manifest = ModelManifest(
            name=model.name,
            encoders={role: model.encoders[role].config for role in owners.values()},
            shares=shares,
            dimensions={role: encoder.dimension for role, encoder in model.encoders.items()},
            weights_sha256=_sha256(work / WEIGHTS),
            metadata=model.metadata,
        )
    except ValidationError as error:
        raise UsageError(f"model {model.name!r} cannot be described: {error}.") from error
    (work / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in (work / WEIGHTS, work / MANIFEST):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    work.chmod(0o755)
    return manifest


def _replaceable(directory: Path) -> bool:
    """Whether replacing it loses nothing but a model: a user's folder of photos must never go."""
    return directory.is_dir() and ((directory / MANIFEST).is_file() or not any(directory.iterdir()))


def _replace(work: Path, directory: Path) -> None:
    """Rename `work` to `directory`; an existing one steps aside first and is removed last."""
    aside = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if directory.exists():
        directory.rename(aside)
    try:
        work.rename(directory)
    except OSError:
        if aside.exists():
            aside.rename(directory)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.", hint="The model directory is incomplete.") from error
