"""The track split: cut each continuous recording along time, never at random.

Neighbouring frames of a walk overlap, so frames are cut into contiguous stretches. One end of each track is
held out as test_unseen with the full buffer in metres; the rest alternates between training and short seen
stretches (test_seen and val in turn), each with a gap in seconds to the training frames around it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geofix.snapshots.blocks import Labels, apply_buffer, drop_uncovered

Ints = NDArray[np.int64]


def split_tracks(
    points: NDArray[np.float64],
    cell: Ints,
    group: Ints,
    captured_at: pd.Series,
    *,
    shares: tuple[float, float],
    buffer_m: float,
    times: tuple[float, float],
    rng: np.random.Generator,
) -> Labels:
    """Label photos by stretches of their track.

    Args:
        points: Unit vectors, shape (n, 3).
        cell: Cell of each photo.
        group: Track of each photo.
        captured_at: UTC times.
        shares: Shares of photos for both test splits together, and for val (all of it seen).
        buffer_m: Metres between test_unseen and everything else.
        times: Seconds dropped beside a seen stretch, and wanted length of one.
        rng: Source of all chance.

    Returns:
        Labels, reasons of dropping, and which photos come from the held-out ends.
    """
    n = len(group)
    labels = np.full(n, "train", dtype="U12")
    reason = np.full(n, "", dtype="U12")
    seconds = captured_at.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9
    tracks = [t[np.argsort(seconds[t], kind="stable")] for t in _members(group)]
    for track in tracks:
        _hold_out_end(labels, track, shares[0] / 2, rng)
    unseen = labels == "test_unseen"
    apply_buffer(points, labels, reason, unseen, buffer_m)
    for track in tracks:
        rest = track[labels[track] == "train"]
        _cut_stretches(labels, reason, rest, seconds, (shares[0] / 2, shares[1]), len(track), times, rng)
    drop_uncovered(labels, reason, unseen, cell)
    return labels, reason, unseen


def _members(group: Ints) -> list[NDArray[np.intp]]:
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _hold_out_end(
    labels: NDArray[np.str_], track: NDArray[np.intp], share: float, rng: np.random.Generator
) -> None:
    count = round(share * len(track))
    at_start = bool(rng.integers(2))
    if count:
        labels[track[:count] if at_start else track[-count:]] = "test_unseen"


def _cut_stretches(
    labels: NDArray[np.str_],
    reason: NDArray[np.str_],
    rest: NDArray[np.intp],
    seconds: NDArray[np.float64],
    shares: tuple[float, float],
    length: int,
    times: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Place seen stretches evenly, with a random offset, and drop the gap around each."""
    gap_s, stretch_s = times
    wanted = sum(shares) * length
    if len(rest) < 8 or wanted < 1:
        return
    span = seconds[rest[-1]] - seconds[rest[0]]
    per_stretch = max(1.0, stretch_s * len(rest) / max(span, 1e-9))
    both = 2 if min(shares) > 0 else 1
    stretches = int(np.clip(round(wanted / per_stretch), both, max(both, len(rest) // 4)))
    photos = max(1, round(wanted / stretches))
    period = len(rest) / stretches
    offset = rng.uniform(0, max(period - photos, 0.0))
    names = _turns(stretches, shares, rng)
    now = seconds[rest]
    for i, name in enumerate(names):
        first = int(i * period + offset)
        last = min(first + photos, len(rest)) - 1
        near = (now >= now[first] - gap_s) & (now <= now[last] + gap_s)
        gap = rest[near & (labels[rest] == "train")]
        labels[gap], reason[gap] = "dropped", "gap"
        labels[rest[first : last + 1]], reason[rest[first : last + 1]] = name, ""


def _turns(stretches: int, shares: tuple[float, float], rng: np.random.Generator) -> list[str]:
    """Names of the stretches in proportion to the shares, each at least once where its share is not 0."""
    tests = round(stretches * shares[0] / sum(shares))
    if min(shares) > 0:
        tests = min(max(tests, 1), stretches - 1)
    names = np.array(["test_seen"] * tests + ["val"] * (stretches - tests))
    return [str(x) for x in rng.permutation(names)]
