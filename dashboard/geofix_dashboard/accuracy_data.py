"""What the accuracy page reads, and what is counted from it.

What the evaluation's own summary says (all photos, or by region, at the distances of the page) is read from
it while it fits. For everything else the photos of an evaluation are read once and shared by all visitors; a
distance, a level of cells or a place that was chosen is then counted in memory. `created` makes a replaced
evaluation a new key everywhere; a page that still has the key of the old one is drawn anew when it would read
the answers of the new one (`_reading`).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from geofix.database.engine import Connection, connect
from geofix.database.queries import dashboard_accuracy as queries
from geofix.database.queries import region_summary
from geofix.database.queries.dashboard import Bounds, fitting_level
from geofix.database.queries.dashboard_accuracy import Asked, Focus
from geofix.database.queries.evaluations import find_evaluation
from geofix.errors import NotFoundError
from geofix_dashboard import accuracy_tables as tables
from geofix_dashboard.data import cached, forget, kept
from geofix_dashboard.meanwhile import meanwhile

FINEST = 16  # level of the cells that stand for regions where there are too many
SHARES = np.linspace(0, 1, 201)
LINES = 2_000
MOST_M = 1_000.0  # answers farther away are looked at when a larger distance is asked for


@cached
def evaluations() -> pd.DataFrame:
    """All evaluations with their metrics."""
    with connect("reader") as conn:
        return queries.evaluations(conn)


@contextmanager
def _reading(*named: tuple[str, str]) -> Iterator[Connection]:
    """A connection to read the answers of evaluations by their names, each with when it was stored.

    Where another one has a name by the end, what was read is dropped, and the page, which holds numbers of
    the old one, begins anew.
    """
    with connect("reader") as conn:
        yield conn
        same = all(_is_stored(conn, name, created) for name, created in named)
    if not same:
        forget()
        st.rerun()


def _is_stored(conn: Connection, name: str, created: str) -> bool:
    try:
        return bool(pd.Timestamp(find_evaluation(conn, name)["created_at"]) == pd.Timestamp(created))
    except NotFoundError:
        return False


@kept(6, shared=True)
def _every(name: str, created: str) -> Asked:
    with _reading((name, created)) as conn:
        return queries.asked(conn, name)


@kept(12, shared=True)
def _regions(name: str, created: str, level: str) -> Any:
    with meanwhile(1) as pool:  # the server reads both at once
        every = pool.submit(_every, name, created)
        with _reading((name, created)) as conn:
            found = queries.region_rows(conn, name, level)
    return queries.regions_at(every.result().photo_id, found)


@kept(4, shared=True)
def _best(name: str, created: str, ks: tuple[int, ...], most_m: float) -> Any:
    every = _every(name, created)
    with _reading((name, created)) as conn:
        return queries.best_errors(conn, name, ks, most_m, every)


@cached
def _region_id(level: str, code: str) -> int | None:
    with connect("reader") as conn:
        return queries.region_id(conn, level, code)


@kept(20)
def _places(ids: tuple[int, ...], tolerance: float | None) -> pd.DataFrame:
    with connect("reader") as conn:
        return queries.places(conn, ids, tolerance)


@cached
def _summary(name: str, created: str, level: str, threshold_m: float) -> pd.DataFrame | None:
    with connect("reader") as conn:
        return region_summary.read(conn, name, level, threshold_m, created_at=created)


@cached
def _box(name: str, created: str) -> region_summary.Box | None:
    with connect("reader") as conn:
        return region_summary.read_box(conn, name, created_at=created)


def _names(tolerance: float) -> tables.Names:
    return lambda ids, shapes: _places(tuple(ids), tolerance if shapes else None)


@cached
def has_photos(name: str, created: str) -> bool:
    """Whether an evaluation asked photos that are still there, though none may count."""
    with connect("reader") as conn:
        return queries.has_photos(conn, name)


def asked(name: str, created: str, focus: Focus) -> Asked:
    """The photos of an evaluation that count, in a focus."""
    found: Asked
    if focus.region_level is not None and focus.region_code is not None:
        region = _region_id(focus.region_level, focus.region_code)
        regions = _regions(name, created, focus.region_level)  # reads the photos too
        found = _every(name, created)
        found = found.only(regions[found.place] == (-1 if region is None else region))
    else:
        found = _every(name, created)
    if focus.lo is not None and focus.hi is not None:
        found = found.only((found.s2_id >= focus.lo) & (found.s2_id <= focus.hi))
    return found


def bounds(name: str, created: str, focus: Focus) -> Bounds | None:
    """The box around the photos of an evaluation; None without any."""
    box: region_summary.Box | None = _box(name, created) if focus == Focus() else None
    if box is not None:
        return box.bounds
    return tables.bounds(asked(name, created, focus))


def overall(name: str, created: str, threshold_m: float, focus: Focus) -> dict[str, float]:
    """Accuracy of an evaluation in a focus."""
    if focus == Focus():
        counts = _summary(name, created, region_summary.EVERYWHERE, threshold_m)
        if counts is not None:
            return tables.summed(counts)
    return tables.overall(asked(name, created, focus), threshold_m)


def by_place(
    name: str, created: str, level: str | int, threshold_m: float, focus: Focus, tolerance: float
) -> pd.DataFrame:
    """Accuracy per region of a level (its name) or S2 cell of a level (its number)."""
    if isinstance(level, str) and focus == Focus():
        counts = _summary(name, created, level, threshold_m)
        if counts is not None:
            return tables.summarized(counts, _names(tolerance))
    here = asked(name, created, focus)
    if isinstance(level, int):
        return tables.by_cell(here, level, threshold_m)
    regions = _regions(name, created, level)
    return tables.by_region(here, regions, _names(tolerance), threshold_m)


def by_wider_cell(
    name: str, created: str, level: str | int, threshold_m: float, focus: Focus
) -> tuple[pd.DataFrame, int]:
    """Accuracy of all photos per S2 cell of the finest level that fits a map, and this level.

    For a map of more places than one can hold; of S2 cells, the level is coarser than theirs.
    """
    here = asked(name, created, focus)
    wider = fitting_level(here.s2_id, level - 1 if isinstance(level, int) else FINEST, tables.MOST_PLACES)
    return tables.by_cell(here, wider, threshold_m), wider


def compare_wider_cells(
    name: str, other: str, created: str, level: str | int, threshold_m: float, focus: Focus
) -> tuple[pd.DataFrame, int]:
    """Difference of two evaluations per S2 cell of the finest level that fits a map, and this level."""
    a, b, _ = _common(name, created, other, focus, None)
    wider = fitting_level(a.s2_id, level - 1 if isinstance(level, int) else FINEST, tables.MOST_PLACES)
    return tables.compare_cells(a, b, wider, threshold_m), wider


def compare_places(
    name: str,
    other: str,
    created: str,
    level: str | int,
    threshold_m: float,
    focus: Focus,
    tolerance: float,
) -> pd.DataFrame:
    """Difference of two evaluations per region or cell."""
    a, b, regions = _common(name, created, other, focus, None if isinstance(level, int) else level)
    if isinstance(level, int):
        return tables.compare_cells(a, b, level, threshold_m)
    return tables.compare_regions(a, b, regions, _names(tolerance), threshold_m)


def quantiles(name: str, created: str, focus: Focus) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of photos, 201 shares from 0 to 1, and the error in metres at each."""
    n, errors = tables.quantiles(asked(name, created, focus), SHARES.tolist())
    return n, SHARES, errors


def recall(
    name: str, created: str, ks: tuple[int, ...], radii: tuple[float, ...], focus: Focus
) -> pd.DataFrame:
    """Recall at K within radii."""
    best = _best(name, created, ks, max(MOST_M, *radii))
    return tables.recall(asked(name, created, focus), best, ks, radii)


def by_bin(
    name: str, created: str, threshold_m: float, focus: Focus, by: str, edges: tuple[float, ...]
) -> pd.DataFrame:
    """Accuracy by distance to training photos, or by their number in the cell."""
    return tables.by_bin(asked(name, created, focus), threshold_m, by=by, edges=edges)


@cached
def error_lines(name: str, created: str, focus: Focus) -> pd.DataFrame:
    """Truth and answer of some photos, a fixed random choice; `photos` counts all answered ones."""
    here = asked(name, created, focus)
    with _reading((name, created)) as conn:
        rows = queries.error_lines(conn, name, tables.some(here, LINES))
    return rows.assign(photos=int((~np.isnan(here.error_m)).sum()))


@cached
def worst(name: str, created: str, focus: Focus, limit: int, offset: int) -> pd.DataFrame:
    """Photos with the largest errors; `photos` counts all."""
    here = asked(name, created, focus)
    with _reading((name, created)) as conn:
        rows = queries.photos(conn, name, tables.worst(here, limit, offset))
    return rows.assign(photos=len(here.photo_id))


@cached
def one_photo(name: str, created: str, photo_id: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One photo of an evaluation as `worst` has it, and its first answers."""
    with _reading((name, created)) as conn:
        return queries.photos(conn, name, [photo_id]), queries.answers(conn, name, photo_id)


@kept(4, shared=True)
def _pair(name: str, created: str, other: str, other_created: str) -> Any:
    from geofix.evaluation.service import read_pair

    with _reading((name, created), (other, other_created)) as conn:
        return read_pair(conn, name, other)


@kept(4, shared=True)
def _pair_asked(name: str, created: str, other: str, other_created: str) -> Any:
    return tables.of_pair(_pair(name, created, other, other_created))


@kept(8, shared=True)
def _pair_regions(name: str, created: str, other: str, other_created: str, level: str) -> Any:
    with meanwhile(1) as pool:  # the server reads both at once
        pair = pool.submit(_pair, name, created, other, other_created)
        with _reading((name, created)) as conn:
            found = queries.region_rows(conn, name, level)
    return queries.regions_at(pair.result().photo_id, found)


def _common(
    name: str, created: str, other: str, focus: Focus, level: str | None
) -> tuple[Asked, Asked, np.ndarray]:
    """Common photos as the first counts them, in a focus, and as the second does; regions of a level of each.

    They are those that the two are compared on, which are read in any case.
    """
    key = (name, created, other, _created(other))
    regions = np.zeros(0, np.int64) if level is None else _pair_regions(*key, level)
    a, b = _pair_asked(*key)
    if focus.region_level is not None and focus.region_code is not None:
        region = _region_id(focus.region_level, focus.region_code)
        places = _pair_regions(*key, focus.region_level)
        a = a.only(places[a.place] == (-1 if region is None else region))
    if focus.lo is not None and focus.hi is not None:
        a = a.only((a.s2_id >= focus.lo) & (a.s2_id <= focus.hi))
    return a, b, regions


@kept(50)
def _median(name: str, created: str, other: str, other_created: str, known_m: float) -> Any:
    from geofix.evaluation.compare import median_difference

    pair = _pair(name, created, other, other_created).counting(known_m)
    return median_difference(pair.errors_a, pair.errors_b, groups=pair.groups)


@kept(50)
def difference(name: str, other: str, created: str, threshold_m: float) -> dict[str, Any]:
    """Two evaluations on their common photos, as `geofix evaluate compare` prints it.

    The medians are compared once for all distances at which the same photos count.
    """
    from geofix.evaluation.service import compare_pair

    others = _created(other)
    pair = _pair(name, created, other, others)
    with ThreadPoolExecutor(1) as beside:  # both leave the interpreter most of the time
        found = beside.submit(compare_pair, pair, threshold_m, median=False)
        # The worst position that still counts stands for the distance.
        known_m = float(pair.gps_m[pair.gps_m <= threshold_m].max(initial=0.0))
        median = _median(name, created, other, others, known_m)
        return {**found.result(), "median_m": median}


def _created(name: str) -> str:
    """When an evaluation was stored; empty where there is none."""
    rows = evaluations()
    found = rows.loc[rows["evaluation"] == name, "created_at"]
    return str(found.iloc[0]) if len(found) else ""
