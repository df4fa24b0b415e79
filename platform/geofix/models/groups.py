"""Which parts of an encoder are trained, and how fast: frozen trunk blocks and optimiser groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from geofix.errors import UsageError
from geofix.models.encoder import Encoder, JoinedEncoder

ParameterGroup = dict[str, Any]


def freeze_trunk(encoder: Encoder) -> int:
    """Apply the configuration's `train_blocks`: freeze all of the trunk but its last blocks.

    Frozen parameters need no gradient, and frozen modules stay in evaluation mode when `encoder.train()` is
    called, so their batch norm keeps its statistics and no dropout acts there. The stem counts as no block;
    a final norm or convolution belongs to the last one. Parameters that the features do not depend on (the
    head timm keeps behind them) are always frozen, as DistributedDataParallel wants it. Calling it again,
    also with another configuration, starts anew.

    Returns:
        Number of trunk values that are trained.

    Raises:
        UsageError: The trunk has fewer blocks, or timm does not say what its blocks are.
    """
    if isinstance(encoder, JoinedEncoder):
        return sum(freeze_trunk(member) for member in _members(encoder))
    trained = _trained_names(encoder)
    for name, parameter in encoder.trunk.named_parameters():
        parameter.requires_grad_(name in trained)
    whole = encoder.config.train_blocks == 0
    encoder.frozen = (encoder.trunk,) if whole else tuple(_frozen_modules(encoder.trunk))
    encoder.train(encoder.training)
    return sum(p.numel() for p in encoder.trunk.parameters() if p.requires_grad)


def trunk_blocks(encoder: Encoder) -> list[list[str]]:
    """Names of the trunk's parameters block by block, first to last, without the stem's.

    Raises:
        UsageError: timm does not say what the trunk's blocks are.
    """
    matcher = getattr(encoder.trunk, "group_matcher", None)
    if matcher is None:
        raise UsageError(
            f"trunk {encoder.config.trunk!r} does not say what its blocks are.",
            hint="Set train_blocks to 0 (trunk frozen) or leave it out (all of it trained).",
        )
    used = _used_names(encoder)
    groups: dict[int, list[str]] = group_parameters(encoder.trunk, matcher(coarse=False))
    blocks = [[name for name in groups[i] if name in used] for i in sorted(groups) if i > 0]
    return [block for block in blocks if block]


def parameter_groups(
    encoder: Encoder, trunk_lr: float, head_lr: float, weight_decay: float
) -> list[ParameterGroup]:
    """Optimiser groups of everything that is trained: trunk and head, each with and without weight decay.

    Norms, biases and other values of at most one dimension do not decay, nor does what timm lists as
    `no_weight_decay` (position embeddings, class tokens). Empty groups are left out.

    Args:
        encoder: After `freeze_trunk`, where parts of it are frozen.
        trunk_lr: Learning rate of the trunk.
        head_lr: Learning rate of pooling and projection.
        weight_decay: Of the matrices.

    Returns:
        Dictionaries with `name` (trunk, trunk_no_decay, head, head_no_decay), `params`, `lr`, `weight_decay`.
    """
    rates = {"trunk": trunk_lr, "head": head_lr}
    members: dict[tuple[str, bool], list[nn.Parameter]] = {(p, d): [] for p in rates for d in (True, False)}
    for one in _members(encoder):
        for part, decays, parameter in _trained_parameters(one):
            members[part, decays].append(parameter)
    return [
        {
            "name": part if decays else f"{part}_no_decay",
            "params": parameters,
            "lr": rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in members.items()
        if parameters
    ]


def _members(encoder: Encoder) -> list[Encoder]:
    """The encoders with a trunk of their own that an encoder is made of."""
    if isinstance(encoder, JoinedEncoder):
        return [member for member in encoder.members if isinstance(member, Encoder)]
    return [encoder]


def _trained_parameters(encoder: Encoder) -> Iterator[tuple[str, bool, nn.Parameter]]:
    """Part, whether it decays, and the parameter, in the order of the encoder."""
    listed = getattr(encoder.trunk, "no_weight_decay", None)
    kept = {f"trunk.{name}" for name in listed()} if listed is not None else set()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            part = "trunk" if name.startswith("trunk.") else "head"
            yield part, parameter.ndim > 1 and name not in kept, parameter


def _trained_names(encoder: Encoder) -> set[str]:
    count = encoder.config.train_blocks
    if count == 0:
        return set()
    if count is None:
        return _used_names(encoder)
    blocks = trunk_blocks(encoder)
    if count > len(blocks):
        raise UsageError(
            f"train_blocks is {count}, trunk {encoder.config.trunk!r} has {len(blocks)} blocks.",
            hint=f"Use 0 to {len(blocks)}, or leave it out to train the stem too.",
        )
    return {name for block in blocks[-count:] for name in block}


def _used_names(encoder: Encoder) -> set[str]:
    """Parameters that the trunk's features depend on, found by one backward pass of one blank picture."""
    trunk, modes = encoder.trunk, {module: module.training for module in encoder.trunk.modules()}
    wanted = {name: parameter.requires_grad for name, parameter in trunk.named_parameters()}
    named = {name: p.requires_grad_(True) for name, p in trunk.named_parameters() if p.is_floating_point()}
    trunk.eval()
    try:
        with torch.enable_grad():
            channels = int(encoder.config.trunk_kwargs.get("in_chans", 3))
            blank = torch.zeros(1, channels, *encoder.transform.size, device=encoder.device)
            total = trunk.forward_features(blank).float().sum()  # type: ignore[operator]
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, parameter in trunk.named_parameters():
            parameter.requires_grad_(wanted[name])
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None}


def _frozen_modules(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules whose parameters are all frozen; those without parameters follow their parent."""
    parameters = list(module.parameters())
    if not parameters:
        return
    if not any(parameter.requires_grad for parameter in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen_modules(child)
