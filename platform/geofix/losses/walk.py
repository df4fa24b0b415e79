"""How a pass over a table goes: its rows in chunks, the pairs left out, and the rows behind each positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofix.losses.base import Place, Table

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Which rows of a table a pass visits.

    Attributes:
        rows: (M,) rows as numbered in `weight`, each once; the first `sorted_part` of them ascend.
        sorted_part: Every row that a place names is among these.
        log_weight: (M,) what is added to each row's logit: the log of how many rows it stands for.
    """

    rows: Ints
    sorted_part: int
    log_weight: NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """A part of a pass: where its rows are, and which masked pairs and positives fall on it."""

    rows: slice | Tensor
    log_weight: Tensor | None
    masked_anchor: Tensor
    masked_column: Tensor
    entries: slice
    entry_column: Tensor


@dataclass(frozen=True)
class Walk:
    """All chunks, and the positives' entries in the order of the chunks.

    Attributes:
        chunks: What is visited, in order.
        anchor: (E,) whose positive an entry is part of.
        row: (E,) its row of `weight`.
        share: (E,) its bilinear weight.
        visited: Number of rows.
    """

    chunks: list[Chunk]
    anchor: Tensor
    row: Tensor
    share: Tensor
    visited: int


def plan_walk(
    table: Table, place: Place, selection: Selection | None, chunk_rows: int, *, hide_ring: bool = True
) -> Walk:
    """Cut a table (or a selection of its rows) into chunks and sort a place's entries into them.

    Args:
        table: Entries of rows that it does not hold are dropped: another shard has them.
        place: On the CPU.
        selection: None: all rows held.
        chunk_rows: Rows per chunk at most.
        hide_ring: The cells around an anchor are no negatives of it.
    """
    weight = table.weight
    weights = place.weights.numpy()
    ring = place.ring.numpy()
    masked_anchor, masked_row, _ = _held(ring if hide_ring else ring[:, :0], table)
    anchor, row, where = _held(np.where(weights > 0, place.rows.numpy(), -1), table)
    share = weights[anchor, where]
    masked_at, row_at = _positions(masked_row, selection), _positions(row, selection)
    order, masked_order = np.argsort(row_at, kind="stable"), np.argsort(masked_at, kind="stable")
    total = len(weight) if selection is None else len(selection.rows)
    starts = np.arange(0, total, chunk_rows, dtype=np.int64)
    stops = np.minimum(starts + chunk_rows, total)
    cut = np.searchsorted(row_at[order], np.append(starts, total))
    masked_cut = np.searchsorted(masked_at[masked_order], np.append(starts, total))

    def moved(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(weight.device)

    # One transfer per array, not per chunk.
    at = moved(row_at[order] % chunk_rows)
    hidden_anchor = moved(masked_anchor[masked_order])
    hidden_column = moved(masked_at[masked_order] % chunk_rows)
    chosen = None if selection is None else moved(selection.rows)
    logs = None if selection is None else moved(selection.log_weight).to(weight.dtype)
    chunks = []
    for k, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        hidden, entries = slice(*masked_cut[k : k + 2].tolist()), slice(*cut[k : k + 2].tolist())
        chunks.append(
            Chunk(
                slice(start, stop) if chosen is None else chosen[start:stop],
                None if logs is None else logs[start:stop],
                hidden_anchor[hidden],
                hidden_column[hidden],
                entries,
                at[entries],
            )
        )
    return Walk(chunks, moved(anchor[order]), moved(row[order]), moved(share[order]).to(weight.dtype), total)


def _held(rows: Ints, table: Table) -> tuple[Ints, Ints, Ints]:
    """(anchor, row of `weight`, place) of the (A, K) global rows that are held here; -1 is none."""
    local = rows - table.first_row
    anchor, place = np.nonzero((rows >= 0) & (local >= 0) & (local < len(table.weight)))
    return anchor, local[anchor, place], place


def _positions(rows: Ints, selection: Selection | None) -> Ints:
    """Where rows of `weight` come in the pass."""
    if selection is None:
        return rows
    at = np.searchsorted(selection.rows[: selection.sorted_part], rows)
    return at.astype(np.int64)
