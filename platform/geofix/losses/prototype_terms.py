"""The loss of anchors against a whole table of prototypes, without ever holding N x D gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geofix.errors import UsageError
from geofix.losses import stream
from geofix.losses.base import PairLoss, Place, RowOptimiser, Table
from geofix.losses.sampled import SampledNegatives
from geofix.losses.shards import Shards
from geofix.losses.walk import Walk, plan_walk

# A chunk and its logits stay in a CPU's cache (2,048 rows took 0.5 of the time of 8,192, 0.4 of 65,536);
# a GPU needs long rows of work instead.
CPU_CHUNK_ROWS = 2048
GPU_CHUNK_ROWS = 65_536
KEEP_BYTES = 1 << 30
NEGLIGIBLE = 1e-5


def prototype_terms(
    anchors: Tensor,
    table: Table,
    place: Place,
    loss: PairLoss,
    *,
    optimiser: RowOptimiser | None,
    chunk_rows: int | None = None,
    keep_bytes: int = KEEP_BYTES,
    negligible: float = NEGLIGIBLE,
    sampled: SampledNegatives | None = None,
    group: Any = None,
) -> Tensor:
    """Loss of each anchor: its positive is the interpolated prototype, its negatives all rows but the ring.

    With a loss of soft labels: all rows, and the weights of the interpolation are the labels.

    The table is read in chunks, once forward and once backward. In the backward pass each chunk's gradient
    goes to `optimiser.update` at once, so the rows have moved when `backward()` returns. Computed in the
    table's own precision whatever autocast says.

    With a group, each rank holds a shard of the rows and brings its own anchors; the log-sum-exp, the
    interpolated prototypes and the anchors' gradients are combined. Rows move along the *mean* over the ranks
    of the gradients of what each rank makes of its results, as DistributedDataParallel does for weights.

    Memory beyond the table and the anchors: A x (rows visited) logits if these are at most `keep_bytes`
    (then the backward pass need not compute them again), and about 4 x chunk_rows x (A + D) numbers.

    Args:
        anchors: (A, D) unit vectors; photos and tiles of a batch concatenated share one pass.
        table: The prototypes.
        place: Of the anchors, A positions.
        loss: Which loss.
        optimiser: Moves the rows; None: `table.weight.grad` is filled instead, N x D numbers.
        chunk_rows: Rows looked at together; None: what suits the device.
        keep_bytes: Limit of the logits kept between the passes.
        negligible: A row whose share of the sum over the negatives is below this, and below 1 / N, for every
            anchor gets no gradient as a negative and gives none: rows far from everything rest, instead of
            being moved by RowAdam as if they mattered. The loss stays exact; the anchors' gradient through
            their negatives is wrong by at most N x this share (measured at N = 100,000 and 128 anchors:
            0.2 % for vectors spread over 32 to 64 dimensions, where half to three quarters of the rows are
            left; 0.002 % and all rows for random ones). 0: leave nothing out.
        sampled: Draw the far negatives of big tables instead of visiting all.
        group: torch.distributed process group of the shards; None: this process holds the whole table.

    Returns:
        (A,) losses, 0 where none of the cells around an anchor has a prototype. Differentiable once.

    Raises:
        UsageError: Anchors, table and place do not fit each other.
    """
    weight = table.weight
    if chunk_rows is None:
        chunk_rows = GPU_CHUNK_ROWS if weight.is_cuda else CPU_CHUNK_ROWS
    _check(anchors, table, place, chunk_rows, group)
    shards = Shards(group)
    everyone = shards.gather_place(place, weight.device)
    selection = None if sampled is None else sampled.draw(table, everyone)
    walk = plan_walk(table, everyone, selection, chunk_rows, hide_ring=not loss.soft_labels)
    settings = _Settings(loss.scale, loss.soft_labels, keep_bytes, negligible, optimiser, shards)
    log_sum, positive = _Terms.apply(anchors.to(weight.dtype), weight, walk, settings)
    has_positive = (place.weights.sum(dim=1) > 0).to(weight.device)
    return torch.where(has_positive, loss.combine(log_sum, positive), 0.0)


def _check(anchors: Tensor, table: Table, place: Place, chunk_rows: int, group: Any) -> None:
    if anchors.ndim != 2 or anchors.shape[1] != table.weight.shape[1] or len(place.rows) != len(anchors):
        raise UsageError(
            f"Anchors {tuple(anchors.shape)}, prototypes {tuple(table.weight.shape)} and "
            f"{len(place.rows)} positions do not belong together."
        )
    if chunk_rows < 1:
        raise UsageError(f"chunk_rows is {chunk_rows}; it must be positive.")
    if group is None and len(table.weight) != len(table.ids):
        raise UsageError(
            f"The table holds {len(table.weight)} of {len(table.ids)} rows.",
            hint="Pass the process group that holds the others.",
        )


@dataclass(frozen=True)
class _Settings:
    scale: float
    soft_labels: bool
    keep_bytes: int
    negligible: float
    optimiser: RowOptimiser | None
    shards: Shards


class _Terms(torch.autograd.Function):
    """(log sum over the negatives, cosine with the positive) of each of this rank's anchors."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        weight: Tensor,
        walk: Walk,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(anchors.device.type, enabled=False):
            everyone = settings.shards.gather(anchors.detach())
            found = stream.forward(
                everyone,
                weight.detach(),
                walk,
                settings.scale,
                settings.keep_bytes,
                settings.shards,
                unit=not settings.soft_labels,
            )
        # Rows are moved in place by the optimiser, which save_for_backward would take for a mistake.
        ctx.weight, ctx.anchors, ctx.found = weight, everyone, found
        ctx.walk, ctx.settings, ctx.moved = walk, settings, False
        own = settings.shards.own(len(everyone))
        return found.log_sum[own].clone(), found.positive[own].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_sum: Tensor, of_positive: Tensor) -> tuple[Tensor | None, ...]:
        settings: _Settings = ctx.settings
        shards, optimiser, found = settings.shards, settings.optimiser, ctx.found
        if ctx.moved:
            raise UsageError("The rows have already moved: prototype terms can be differentiated once.")
        ctx.moved = optimiser is not None
        weight = ctx.weight.detach()
        dense = torch.zeros_like(weight) if optimiser is None else None

        def give(rows: slice | Tensor, gradient: Tensor) -> None:
            if shards.count > 1:
                gradient /= shards.count
            if optimiser is not None:
                optimiser.update(rows, gradient)
            elif dense is not None:
                dense[rows] = gradient

        with torch.autocast(weight.device.type, enabled=False):
            log_sums, positives = shards.gather(of_log_sum), shards.gather(of_positive)
            out = stream.backward(
                ctx.anchors,
                weight,
                ctx.walk,
                settings.scale,
                found,
                log_sums,
                positives,
                min(settings.negligible, 1 / max(1, ctx.walk.visited * shards.count)),
                give,
            )
            own = shards.own(len(out))
            mine = shards.add(out)[own]
            mine = mine + of_positive[:, None] * found.towards[own]
        return mine, dense, None, None
