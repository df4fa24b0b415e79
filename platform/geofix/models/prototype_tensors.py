"""The prototypes in a model directory, read without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geofix.errors import BadInputError, NotFoundError, ServiceError
from geofix.models.manifest import WEIGHTS, ModelManifest
from geofix.spatial import s2

NAMES = ("prototypes.s2_id", "prototypes.weight", "prototypes.photos")
_SHORTEST = 1e-6


class Prototypes(NamedTuple):
    """Prototypes of cells of one level.

    Attributes:
        ids: (n,) signed S2 ids, ascending.
        vectors: (n, D) float32 of unit length.
        photos: (n,) training photos per cell.
    """

    ids: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    photos: npt.NDArray[np.int32]


def read_prototypes(directory: Path, manifest: ModelManifest) -> Prototypes | None:
    """The prototypes of a trained model; None where none were trained.

    Raises:
        ServiceError: The model has prototypes, and `safetensors` is not installed.
        NotFoundError: The weights are missing.
        BadInputError: The weights are damaged or not those of the description, or the prototypes do not fit
            the model.
    """
    path = directory / WEIGHTS
    announced = manifest.metadata.get("prototype_level")
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        if announced is None:
            return None
        raise ServiceError(
            f"{path} holds prototypes, which this installation cannot read.",
            hint="Install geofix with the extra `train`.",
        ) from None
    _check_hash(path, manifest.weights_sha256)
    try:
        with safe_open(path, framework="numpy") as file:
            held = set(file.keys())
            if not held.intersection(NAMES):
                found = None
            else:
                found = [file.get_tensor(name) for name in NAMES if name in held]
    except SafetensorError as error:
        raise BadInputError(f"{path} is damaged: {error}.", hint="Copy the model directory again.") from error
    if found is None and announced is None:
        return None
    if found is None or len(found) < len(NAMES):
        raise _bad(path, f"says level {announced}, and not all of {', '.join(NAMES)} are in the file")
    return _checked(path, Prototypes(*found), manifest)


def _checked(path: Path, made: Prototypes, manifest: ModelManifest) -> Prototypes:
    ids, vectors, photos = made
    dimension = manifest.dimensions["ground"]
    if ids.dtype != np.int64 or ids.ndim != 1 or not len(ids) or photos.shape != ids.shape:
        raise _bad(path, f"ids are {ids.dtype} {ids.shape}, photos {photos.shape}")
    if vectors.shape != (len(ids), dimension):
        raise _bad(
            path, f"weights are {vectors.shape}, {len(ids)} cells of dimension {dimension} were expected"
        )
    if not s2.is_valid(ids).all() or (np.diff(ids) <= 0).any():
        raise _bad(path, "ids are not S2 cells in ascending order")
    levels = np.unique(s2.level(ids))
    announced = manifest.metadata.get("prototype_level", int(levels[0]))
    if levels.tolist() != [announced]:
        raise _bad(path, f"cells are of level {', '.join(map(str, levels))}, level {announced} was announced")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths < _SHORTEST).any():
        raise _bad(path, "a prototype is not finite or zero")
    return Prototypes(ids, (vectors / lengths).astype(np.float32), photos.astype(np.int32))


def _check_hash(path: Path, wanted: str) -> None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.", hint="The model directory is incomplete.") from error
    if found != wanted:
        raise BadInputError(
            f"{path} has sha256 {found[:12]}, its description says {wanted[:12]}.",
            hint="Copy the model directory again, or train it again.",
        )


def _bad(path: Path, what: str) -> BadInputError:
    return BadInputError(f"{path}: prototypes cannot be used: {what}.", hint="Train the model again.")
