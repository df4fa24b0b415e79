"""Cosines of anchors with a table in chunks: log-sum-exp, positives, and the gradients of both.

Notation: anchors a (unit), rows w of length n, u = w / n, r = 1 / n. A logit is scale * a.u + log_weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geofix.losses.shards import Shards
from geofix.losses.walk import Chunk, Walk

TINY = 1e-12
WORTH_PICKING = 0.7  # below this share of relevant rows, picking them out costs less than it saves


@dataclass
class Forward:
    """What a forward pass found and the backward pass needs.

    Attributes:
        log_sum: (A,) over the negatives; -inf: none.
        positive: (A,) product with p; 0 where there is none.
        towards: (A, D) p: the interpolated vector, made unit unless it stands for soft labels.
        length: (A, 1) of the interpolated vector before it was made unit; None: it was not.
        logits: Per chunk, or None when they are to be computed again.
    """

    log_sum: Tensor
    positive: Tensor
    towards: Tensor
    length: Tensor | None
    logits: list[Tensor] | None


def forward(
    anchors: Tensor,
    weight: Tensor,
    walk: Walk,
    scale: float,
    keep_bytes: int,
    shards: Shards,
    *,
    unit: bool = True,
) -> Forward:
    """Visit every chunk once; `unit`: the interpolated vectors are made unit vectors."""
    keep = len(anchors) * walk.visited * anchors.element_size() <= keep_bytes
    kept: list[Tensor] = []
    total = torch.full((len(anchors),), -torch.inf, dtype=anchors.dtype, device=anchors.device)
    for chunk in walk.chunks:
        rows = _rows(weight, chunk)
        logits = _logits(anchors, rows, _inverse_length(rows), chunk, scale)
        total = torch.logaddexp(total, torch.logsumexp(logits, dim=1))
        if keep:
            kept.append(logits)
    interpolated = torch.zeros_like(anchors)
    entries = weight[walk.row]
    entries *= (walk.share * _inverse_length(entries))[:, None]
    shards.add(interpolated.index_add_(0, walk.anchor, entries))
    length = interpolated.norm(dim=1, keepdim=True).clamp_(min=TINY) if unit else None
    towards = interpolated if length is None else interpolated.div_(length)
    positive = torch.linalg.vecdot(anchors, towards)
    return Forward(shards.log_add(total), positive, towards, length, kept if keep else None)


def backward(
    anchors: Tensor,
    weight: Tensor,
    walk: Walk,
    scale: float,
    found: Forward,
    of_log_sum: Tensor,
    of_positive: Tensor,
    negligible: float,
    give: Callable[[slice | Tensor, Tensor], None],
) -> Tensor:
    """Gradient of the anchors; that of every chunk's rows is given away as soon as it is known.

    Args:
        anchors: All ranks'.
        weight: Rows held here. A chunk is not read again after its gradient was given.
        walk: As in `forward`.
        scale: As in `forward`.
        found: What `forward` returned; its logits are used up.
        of_log_sum: (A,) gradient of `found.log_sum`.
        of_positive: (A,) gradient of `found.positive`.
        negligible: A row whose share of every anchor's sum is below this is no negative here.
        give: Called with rows and their gradient, which it may overwrite.

    Returns:
        (A, D): through the negatives held here, without the positive's part.
    """
    out = torch.zeros_like(anchors)
    # -inf - -inf is no number; where there is no negative every logit is -inf, so any finite value serves.
    log_sum = found.log_sum.masked_fill(found.log_sum == -torch.inf, 0)[:, None]
    factor = (scale * of_log_sum)[:, None]
    of_mean = of_positive[:, None] * anchors
    if found.length is not None:  # through the division by the length
        of_mean = (of_mean - (of_positive * found.positive)[:, None] * found.towards) / found.length
    lowest = math.log(negligible) if negligible > 0 else -math.inf
    for chunk, logits in _with_logits(anchors, weight, walk, scale, found.logits):
        part = _relevant(weight, chunk, logits.sub_(log_sum), lowest)
        inverse = _inverse_length(part.values)
        share = part.logits.exp_().mul_(factor).mul_(inverse * part.counts)
        out.addmm_(share, part.values)
        gradient = share.T @ anchors
        pull = of_mean[walk.anchor[chunk.entries]]
        pull *= (walk.share[chunk.entries] * inverse[part.entry_column])[:, None]
        gradient.index_add_(0, part.entry_column, pull)
        # Through w / n: what points along w drops out.
        along = torch.linalg.vecdot(gradient, part.values) * inverse.square()
        gradient.addcmul_(part.values, along[:, None], value=-1)
        give(part.rows, gradient)
    found.logits = None
    return out


@dataclass
class _Part:
    """What of a chunk gets a gradient.

    Attributes:
        rows: Which rows of the weight.
        values: (C, D) them.
        logits: (A, C), less the log sum.
        counts: (C,) 1 where a row is a negative of some weight, else 0.
        entry_column: (E,) which of the rows each entry of a positive is.
    """

    rows: slice | Tensor
    values: Tensor
    logits: Tensor
    counts: Tensor
    entry_column: Tensor


def _relevant(weight: Tensor, chunk: Chunk, logits: Tensor, lowest: float) -> _Part:
    """Leave out the rows that matter to no anchor: by a factor 0, and on a CPU not to compute them at all."""
    counts = logits.amax(dim=0) >= lowest
    entry_column = chunk.entry_column
    if not weight.is_cuda:  # there, to ask how many are left would stop the queue of work
        wanted = counts.index_fill(0, entry_column, True)
        columns = wanted.nonzero()[:, 0]
        if len(columns) < WORTH_PICKING * len(counts):
            new_column = (wanted.cumsum(0) - 1)[entry_column]
            rows = columns + chunk.rows.start if isinstance(chunk.rows, slice) else chunk.rows[columns]
            factor = counts[columns].to(logits.dtype)
            return _Part(
                rows, weight.index_select(0, rows), logits.index_select(1, columns), factor, new_column
            )
    return _Part(chunk.rows, _rows(weight, chunk), logits, counts.to(logits.dtype), entry_column)


def _with_logits(
    anchors: Tensor, weight: Tensor, walk: Walk, scale: float, kept: list[Tensor] | None
) -> Iterator[tuple[Chunk, Tensor]]:
    """Chunks with logits that the caller may overwrite."""
    for k, chunk in enumerate(walk.chunks):
        if kept is None:
            rows = _rows(weight, chunk)
            yield chunk, _logits(anchors, rows, _inverse_length(rows), chunk, scale)
        else:
            yield chunk, kept[k]


def _rows(weight: Tensor, chunk: Chunk) -> Tensor:
    return weight[chunk.rows]


def _inverse_length(rows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return length.clamp_(min=TINY).reciprocal_()


def _logits(anchors: Tensor, rows: Tensor, inverse: Tensor, chunk: Chunk, scale: float) -> Tensor:
    """(A, C): scaled cosines plus log weights; -inf where a row is no negative of an anchor."""
    logits = (anchors @ rows.T).mul_(inverse * scale)
    if chunk.log_weight is not None:
        logits += chunk.log_weight
    if len(chunk.masked_anchor):
        logits[chunk.masked_anchor, chunk.masked_column] = -torch.inf
    return logits
