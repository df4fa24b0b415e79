"""One step: embed a batch, weigh the three terms, move the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geofix.errors import GeofixError
from geofix.losses.multi_similarity import MultiSimilarity
from geofix.losses.pairs import pair_term
from geofix.losses.prototype_terms import prototype_terms
from geofix.losses.sampled import SampledNegatives
from geofix.losses.softmax import Softmax
from geofix.training.blame import Pulls, bare
from geofix.training.config import TrainingConfig
from geofix.training.distributed import Team
from geofix.training.halves import Partner, compared
from geofix.training.samples import Batch, pair_masks
from geofix.training.state import State

TERMS = ("ground_prototype", "ground_aerial", "aerial_prototype", "auxiliary")


class DivergedError(GeofixError):
    """The loss or its gradient is no longer a number."""

    exit_code = 5


@dataclass(frozen=True)
class Outcome:
    """What a step gave.

    Attributes:
        terms: Mean of each term that took part.
        loss: Their weighted sum.
        norm: Of the encoders' gradient before clipping.
    """

    terms: dict[str, float]
    loss: float
    norm: float


def make_loss(config: TrainingConfig, *, table: bool = False) -> MultiSimilarity | Softmax:
    """The loss that the configuration names: between photos and tiles, or against a table."""
    section = config.loss
    if section.kind == "softmax":
        own = config.prototypes.temperature if table else None
        return Softmax(own or section.temperature, config.prototypes.soft_labels)
    return MultiSimilarity(section.alpha, section.beta, section.lam)


def autocast(config: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    """The precision that forward passes run in."""
    low = config.precision == "bfloat16" or (
        config.precision != "float32"
        and (device.type == "cuda" or (config.precision == "native" and cpu_has_bfloat16()))
    )
    return torch.autocast(device.type, torch.bfloat16, enabled=low)


def cpu_has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 (AVX512-BF16, AMX); others would emulate it, slowly."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def take_step(
    state: State,
    batch: Batch,
    config: TrainingConfig,
    sampled: SampledNegatives | None = None,
    team: Team | None = None,
) -> Outcome:
    """Train on one batch, or under torchrun on this rank's part of it.

    Raises:
        DivergedError: A term or the gradient is not finite; the encoders are as they were before.
    """
    state.optimiser.zero_grad(set_to_none=True)
    batch = batch.to(state.device, non_blocking=True)
    seen = torch.from_numpy(batch.has_aerial)
    with autocast(config, state.device):
        ground = state.networks["ground"](batch.ground)
        aerial = None
        if "aerial" in state.networks:
            aerial = _aerial(state, batch, seen, team or Team())
    loss_of = make_loss(config)
    group = None if team is None else team.group
    against = make_loss(config, table=True)
    pulls = Pulls()
    terms = dict(_table_terms(state, batch, ground, aerial, seen, config, against, sampled, group, pulls))
    pairs: dict[str, tuple[float, Partner]] = {
        "ground_aerial": (config.loss.ground_aerial, "tiles"),
        "auxiliary": (config.loss.auxiliary, "prototypes"),
    }
    for name, (weight, half) in pairs.items():
        if aerial is not None and weight:
            photos, tiles = pulls.of(name, "ground", ground), pulls.of(name, "aerial", aerial)
            terms[name] = _pair(batch, photos, tiles, half, config, loss_of)
    if not terms:
        return Outcome({}, 0.0, 0.0)
    where = f"step {state.clock.step + 1} (epoch {state.clock.epoch + 1})"
    values = {name: float(value.detach()) for name, value in terms.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"The term {name} is {value} at {where}.", hint=_HINT)
    weights = config.loss.model_dump(include=set(TERMS))
    total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(_trained(state), config.optimiser.clip))
    if not math.isfinite(norm):
        faulty = pulls.at_fault(terms, _again(state, batch, seen, config, team or Team()), _trained(state))
        raise DivergedError(f"The gradient of {', '.join(faulty)} is {norm} at {where}.", hint=_HINT)
    state.optimiser.step()
    return Outcome(values, float(total.detach()), norm)


_HINT = "Lower the learning rates or train in float32; the last checkpoint is from before."


def _table_terms(
    state: State, batch: Batch, ground: Tensor, aerial: Tensor | None, seen: Tensor,
    config: TrainingConfig, loss_of: MultiSimilarity | Softmax, sampled: SampledNegatives | None, group: Any,
    pulls: Pulls,
) -> Iterator[tuple[str, Tensor]]:  # fmt: skip
    """Ground and aerial against the prototypes, in one pass over a table.

    In separate halves ground alone against the prototypes, then both against the proxies.
    """
    if not state.clock.table_started:
        return
    tables = state.tables
    met: Partner = "tiles" if "tiles" in tables else "prototypes"  # where tiles meet a table, if they do
    for half, (table, rows) in tables.items():
        both = aerial is not None and config.loss.aerial_prototype > 0 and half == met
        lon, lat = batch.lon, batch.lat
        of_photos = "ground_prototype" if half == "prototypes" else "aerial_prototype"
        anchors = compared(pulls.of(of_photos, "ground", ground), half, config)
        if both and aerial is not None:
            lon = np.concatenate([lon, batch.tile_lon])
            lat = np.concatenate([lat, batch.tile_lat])
            tiles = pulls.of("aerial_prototype", "aerial", aerial)
            anchors = torch.cat([anchors, compared(tiles, half, config)])
        place = table.place(lon, lat, interpolate=config.prototypes.interpolate)
        first = len(ground)
        if both:
            place.weights[first:][~seen] = 0.0  # a tile that shows nothing has no positive
        losses = prototype_terms(
            anchors,
            table,
            place,
            loss_of,
            optimiser=rows,
            chunk_rows=config.prototypes.chunk_rows,
            sampled=sampled,
            group=group,
        )
        counted = place.has_positive.to(losses.device)
        of_ground = _mean(losses[:first], counted[:first])
        of_aerial = _mean(losses[first:], counted[first:])  # 0 without tiles
        if half == "prototypes":
            yield "ground_prototype", of_ground
            if both:
                yield "aerial_prototype", of_aerial
        else:
            yield "aerial_prototype", of_ground + of_aerial


def _pair(
    batch: Batch, ground: Tensor, aerial: Tensor, half: Partner, config: TrainingConfig,
    loss_of: MultiSimilarity | Softmax,
) -> Tensor:  # fmt: skip
    """Ground, by one of its halves, against aerial; a tile that shows nothing is in no pair."""
    positive, negative = (mask.to(ground.device) for mask in pair_masks(batch, config.tiles.side_m))
    photos, tiles = compared(ground, half, config), compared(aerial, "tiles", config)
    losses = pair_term(photos, tiles, positive, negative, loss_of)
    return _mean(losses, positive.any(dim=1) | positive.any(dim=0))


def _aerial(state: State, batch: Batch, seen: Tensor, team: Team) -> Tensor | None:
    """(B, D) vectors of the tiles, zeros where one shows nothing; None where fewer than two do."""
    network = state.networks["aerial"]
    if bool(seen.all()) or team.size > 1:  # every rank must take part in every backward pass
        return network(batch.aerial)  # type: ignore[no-any-return]
    if int(seen.sum()) < 2:  # batch norm needs two
        return None
    # Blank tiles would move the batch norm's statistics.
    rows = torch.nonzero(seen)[:, 0].to(state.device)
    vectors: Tensor = network(batch.aerial[rows])
    return vectors.new_zeros(len(seen), vectors.shape[1]).index_copy(0, rows, vectors)


def _again(state: State, batch: Batch, seen: Tensor, config: TrainingConfig, team: Team) -> dict[str, Tensor]:
    """The vectors of a batch once more, by role, as this process alone makes them."""
    alone = replace(state, networks={role: bare(network) for role, network in state.networks.items()})
    with autocast(config, state.device):
        found = {"ground": alone.networks["ground"](batch.ground)}
        aerial = _aerial(alone, batch, seen, team) if "aerial" in alone.networks else None
    return found if aerial is None else {**found, "aerial": aerial}


def _mean(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean over the anchors that have a positive; 0 where none has."""
    return losses[counted].sum() / counted.sum().clamp(min=1)


def _trained(state: State) -> list[torch.nn.Parameter]:
    return [p for group in state.optimiser.param_groups for p in group["params"]]
