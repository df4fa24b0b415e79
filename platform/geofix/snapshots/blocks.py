"""The block split: hold out whole blocks, buffer them, then take whole sequences for the seen splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofix.snapshots.groups import nearest_m

Ints = NDArray[np.int64]
Labels = tuple[NDArray[np.str_], NDArray[np.str_], NDArray[np.bool_]]
_MIN_COVERED = (
    0.5  # A sequence may be tested as "seen" when at least half its photos lie in cells that stay trained.
)


def split_blocks(
    points: NDArray[np.float64],
    block: Ints,
    cell: Ints,
    group: Ints,
    *,
    test: float,
    val: float,
    buffer_m: float,
    rng: np.random.Generator,
) -> Labels:
    """Label photos by whole blocks and whole sequences.

    Args:
        points: Unit vectors, shape (n, 3).
        block: Block of each photo.
        cell: Cell of each photo.
        group: Sequence of each photo.
        test: Share of photos in both test splits.
        val: Share of photos in val.
        buffer_m: Metres.
        rng: Source of all chance.

    Returns:
        Labels, reasons of dropping, and which photos come from held-out blocks.
    """
    n = len(block)
    labels = np.full(n, "train", dtype="U12")
    reason = np.full(n, "", dtype="U12")
    unseen = np.zeros(n, dtype=bool)
    codes, of_test, of_val = _choose_blocks(block, group, (test * n / 2, val * n / 2), rng)
    in_test, in_val = of_test[codes], of_val[codes]
    touches_test, touches_val = _touches(group, in_test), _touches(group, in_val)
    labels[in_test] = "test_unseen"
    labels[in_val & ~touches_test] = "val"
    strays = (touches_test & ~in_test) | (touches_val & ~in_val & ~touches_test)
    _drop(labels, reason, strays, "sequence")
    unseen[in_test | (labels == "val")] = True
    apply_buffer(points, labels, reason, unseen, buffer_m)
    _take_seen(labels, cell, group, "test_seen", test * n / 2, rng)
    _take_seen(labels, cell, group, "val", val * n / 2, rng)
    drop_uncovered(labels, reason, unseen, cell)
    return labels, reason, unseen


def apply_buffer(
    points: NDArray[np.float64],
    labels: NDArray[np.str_],
    reason: NDArray[np.str_],
    unseen: NDArray[np.bool_],
    buffer_m: float,
) -> None:
    """Drop what lies within the buffer of test_unseen, then training photos within that of unseen val."""
    _clear(points, labels, reason, labels == "test_unseen", {"train", "val", "test_seen"}, buffer_m)
    _clear(points, labels, reason, (labels == "val") & unseen, {"train"}, buffer_m)


def _clear(
    points: NDArray[np.float64],
    labels: NDArray[np.str_],
    reason: NDArray[np.str_],
    centre: NDArray[np.bool_],
    others: set[str],
    buffer_m: float,
) -> None:
    rest = np.flatnonzero(np.isin(labels, list(others)))
    if buffer_m > 0 and centre.any() and len(rest):
        distance, _ = nearest_m(points[rest], points[centre], buffer_m)
        _drop(labels, reason, rest[distance <= buffer_m], "buffer")


def drop_uncovered(
    labels: NDArray[np.str_], reason: NDArray[np.str_], unseen: NDArray[np.bool_], cell: Ints
) -> None:
    """Drop seen test and val photos whose cell has no training photo after all."""
    seen = ((labels == "test_seen") | (labels == "val")) & ~unseen
    _drop(labels, reason, seen & ~np.isin(cell, cell[labels == "train"]), "not_seen")


def _drop(
    labels: NDArray[np.str_],
    reason: NDArray[np.str_],
    which: NDArray[np.bool_] | Ints | NDArray[np.intp],
    why: str,
) -> None:
    labels[which] = "dropped"
    reason[which] = why


def _touches(group: Ints, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Photos whose sequence has a photo inside."""
    hit = np.zeros(int(group.max(initial=-1)) + 1, dtype=bool)
    hit[group[inside]] = True
    touched: NDArray[np.bool_] = hit[group]
    return touched


def _choose_blocks(
    block: Ints, group: Ints, wanted: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
    """Draw blocks for test and val at random, first those whose sequences lose few photos outside."""
    ids, codes = np.unique(block, return_inverse=True)
    size = np.bincount(codes, minlength=len(ids))
    pairs = np.unique(np.stack([codes, group], axis=1), axis=0)
    of_group = np.bincount(group)
    # Photos of the block's sequences that lie in other blocks.
    cost = np.bincount(pairs[:, 0], weights=of_group[pairs[:, 1]], minlength=len(ids)) - size
    shuffled = rng.permutation(len(ids))
    cheap = cost <= size
    chosen = [np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=bool)]
    free = np.ones(len(ids), dtype=bool)
    left = len(ids)
    for mine, target in zip(chosen, wanted, strict=True):
        got = 0
        # The last passes take what is there, so that a small data set still gets its held-out block.
        for limit, dear in ((1.25, False), (1.25, True), (3.0, False), (3.0, True), (np.inf, True)):
            if got >= 0.8 * target and got > 0:
                break
            for b in shuffled:
                if target <= 0 or got >= target or left <= 1:
                    break
                if free[b] and (cheap[b] or dear) and size[b] <= limit * (target - got):
                    mine[b], free[b] = True, False
                    got += int(size[b])
                    left -= 1
                    if limit == np.inf:
                        break
    return codes, chosen[0], chosen[1]


def _take_seen(
    labels: NDArray[np.str_], cell: Ints, group: Ints, name: str, target: float, rng: np.random.Generator
) -> None:
    """Move random whole sequences from train to a seen split, as long as their cells keep training photos."""
    photos = np.flatnonzero(labels == "train")
    if target <= 0 or len(photos) == 0:
        return
    _, cells = np.unique(cell[photos], return_inverse=True)
    _, groups = np.unique(group[photos], return_inverse=True)
    key, count = np.unique(groups.astype(np.int64) * (cells.max() + 1) + cells, return_counts=True)
    pair_group, pair_cell = key // (cells.max() + 1), key % (cells.max() + 1)
    start = np.searchsorted(pair_group, np.arange(groups.max() + 2))
    trained = np.bincount(pair_cell, minlength=cells.max() + 1)  # sequences still training each cell
    needed = np.zeros(cells.max() + 1, dtype=bool)  # cells with test photos, which must stay trained
    taken = np.zeros(groups.max() + 1, dtype=bool)
    got = 0
    for g in rng.permutation(groups.max() + 1):
        if got >= target:
            break
        mine = slice(start[g], start[g + 1])
        here, photos_here = pair_cell[mine], count[mine]
        covered = trained[here] >= 2
        n_covered = int(photos_here[covered].sum())
        too_big = got > 0 and got + n_covered > 1.5 * target
        if n_covered < _MIN_COVERED * photos_here.sum() or (needed[here] & ~covered).any() or too_big:
            continue
        taken[g] = True
        trained[here] -= 1
        needed[here[covered]] = True
        got += n_covered
    labels[photos[taken[groups]]] = name
