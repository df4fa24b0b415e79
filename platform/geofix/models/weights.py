"""Trunk weights from a local or remote file: hashed first, then read without pickle."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec
import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from geofix.errors import BadInputError, NotFoundError

_log = structlog.get_logger(module=__name__)
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_CLASSIFIERS = ("classifier.", "fc.", "head.", "head_dist.")


@dataclass(frozen=True)
class LoadReport:
    """What a state dict gave and what it did not.

    Attributes:
        sha256: Of the file.
        loaded: Number of tensors taken over.
        dropped: Keys that the trunk does not have: of the classifier, or of the pretraining.
        resampled: Position embeddings that were made for another number of positions.
    """

    sha256: str
    loaded: int
    dropped: tuple[str, ...]
    resampled: tuple[str, ...] = ()


def read_state_dict(uri: str, sha256: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Read a state dict as float32 tensors, with the file's sha256.

    Args:
        uri: fsspec URI or path of a .safetensors file or of one written by `torch.save`.
        sha256: Expected hash; a difference is an error and nothing is parsed.

    Raises:
        NotFoundError: The file does not exist.
        BadInputError: The hash differs, or the file holds anything but named tensors.
    """
    data = _read_bytes(uri)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise BadInputError(
            f"weights {uri} have sha256 {found}, expected {sha256}.",
            hint="Fetch the file again, or correct weights_sha256 if the new file is meant.",
        )
    tensors = _parse(uri, data)
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, found


def load_trunk(trunk: nn.Module, uri: str, sha256: str | None = None) -> LoadReport:
    """Fill a trunk from a state dict.

    Left over may be what a classifier has. A file that does not fit as it is goes through the filter that
    timm has for the trunk's family: absolute position embeddings are resampled where only their number
    differs (input of another size), its publisher's keys are renamed or, like `mask_token`, left out.

    Raises:
        BadInputError: A key is missing, unexpected, or of another shape; the message lists the first of them.
    """
    given, found = read_state_dict(uri, sha256)
    own = trunk.state_dict()
    state = {k: v for k, v in given.items() if k in own or not k.startswith(_CLASSIFIERS)}
    faults = _faults(own, state)
    if any(faults.values()):
        state = _filtered(trunk, state) or state
    if any(_faults(own, state).values()):
        text = "; ".join(f"{len(k)} {what} ({', '.join(k[:3])}...)" for what, k in faults.items() if k)
        raise BadInputError(
            f"weights {uri} do not fit the trunk: {text}.",
            hint="Check the trunk's name and trunk_kwargs against the file the weights were made for.",
        )
    trunk.load_state_dict(state)
    dropped = tuple(k for k in given if k not in state)
    resampled = tuple(k for k in state if k in given and given[k].shape != state[k].shape and _is_position(k))
    _log.info("weights loaded", uri=uri, tensors=len(state), dropped=list(dropped))
    if resampled:
        shapes = {k: f"{list(given[k].shape)} -> {list(state[k].shape)}" for k in resampled}
        _log.info("position embeddings resampled to the input's size", uri=uri, shapes=shapes)
    return LoadReport(found, len(state), dropped, resampled)


def _faults(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, list[str]]:
    return {
        "missing": [k for k in own if k not in state],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [k for k, v in state.items() if k in own and v.shape != own[k].shape],
    }


def _filtered(trunk: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """What timm makes of a published file for this trunk; None where it would change more than positions."""
    convert = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        made: dict[str, Tensor] = convert(dict(state), trunk)
    except Exception as error:  # a filter may fail in any way at a file that is not of its family
        _log.debug("timm's filter does not take the weights", error=repr(error))
        return None
    own = trunk.state_dict()
    # Values may be put in another order, but patches of another size, say, are another network.
    if any(k in made and v.numel() != made[k].numel() and not _is_position(k) for k, v in state.items()):
        return None
    return {k: v for k, v in made.items() if k in own or not k.startswith(_CLASSIFIERS)}


def _is_position(key: str) -> bool:
    """Whether a key is that of an absolute position embedding."""
    return "pos_embed" in key.rpartition(".")[2]


def _read_bytes(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as stream:
            data: bytes = stream.read()
            return data
    except FileNotFoundError as error:
        raise NotFoundError(
            f"weights {uri} do not exist.",
            hint="Correct the model's weights_uri, or the training's weights (--set ground.weights=FILE).",
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise BadInputError(
            f"weights {uri} cannot be read: {error}.", hint="Check the URI and its access rights."
        ) from error


def _parse(uri: str, data: bytes) -> dict[str, Tensor]:
    content: object
    try:
        if PurePosixPath(uri).suffix == ".safetensors":
            content = load_safetensors(data)
        else:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise _not_tensors(uri, str(error).splitlines()[0]) from error
    except Exception as error:  # torch raises pickle.UnpicklingError for anything but tensors
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _not_tensors(uri, "it holds other objects than tensors") from error
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise _not_tensors(uri, f"it holds a {type(content).__name__}")
    tensors = {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
    if len(tensors) != len(content):
        raise _not_tensors(uri, f"{len(content) - len(tensors)} of {len(content)} entries are no tensors")
    return tensors


def _not_tensors(uri: str, reason: str) -> BadInputError:
    return BadInputError(
        f"weights {uri} are not a plain state dict: {reason}.",
        hint="Store the trunk's state dict as .safetensors.",
    )
