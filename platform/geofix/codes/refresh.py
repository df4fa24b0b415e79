"""New codes for the cells of one region after new photos or tiles, without training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.codes.complete import complete_codes, completion_norm
from geofix.codes.index import build_index, recall_with_photos
from geofix.codes.recipes import CellVectors, centres_inside
from geofix.codes.region_codes import Refreshed, codes_of_region, within_bounds
from geofix.database.engine import Connection
from geofix.database.queries import codes as code_queries
from geofix.database.queries import models as model_queries
from geofix.database.queries import refresh as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.refresh import NewRows
from geofix.database.queries.shard_pieces import is_distributed, move_of
from geofix.database.shard_pieces import alone
from geofix.errors import BadInputError, UsageError
from geofix.log import get_logger
from geofix.spatial import s2

# Rows that were replaced stay in the graph until all of it is made anew. Searches pass over them: with three
# of them for each live code of a region, recall there was what it is without (decision 0020).
MOST_SHARE = 0.1  # above it, adding rows to the graph one by one is also slower than making it anew
MOST_OVERLAPS = 3

_SAME = 1e-3  # of one component: rounding to fp16 and the order of sums stay below

_log = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class _Change:
    """What a refresh writes.

    Attributes:
        replaced: Cells (r,) whose stored code goes.
        rows: New rows, ascending by cell.
        counts: added, removed, changed.
    """

    replaced: NDArray[np.int64]
    rows: NewRows
    counts: dict[str, int]


def refresh_region(
    conn: Connection,
    name: str,
    region_ewkb: bytes,
    *,
    datasets: list[str] | None = None,
    memory_bytes: int = 512 << 20,
) -> dict[str, Any]:
    """Make the codes of a region again and publish them; commits.

    Everything else is kept: kappa, biases, temperature and scale M of the code set, and the codes
    elsewhere. Until the commit every other session searches the old codes, afterwards the new ones under the
    same name. Rows are replaced where they are, in one transaction, and join the HNSW index if there is one.
    Where too many replaced rows would be in that index, or the set is spread over servers, a successor is
    written instead: the server copies the other codes, the index is built again by its parameters. Recall is
    measured either way. Photos and tiles must have been embedded.

    Learned prototypes stay as they are. A cell without one gets the mean of its photos' embeddings instead;
    such cells are listed in the code set's `config.mean_prototypes`. Photos of any snapshot's val and test
    splits never take part.

    Args:
        conn: Open connection of the owner.
        name: A ready code set of any recipe.
        region_ewkb: Cells whose centre lies in it are made again.
        datasets: Only photos of these data sets beside the training photos; None takes all.
        memory_bytes: What building the index may use.

    Returns:
        code_set, cells, in_region, added, removed, changed, in_place, mean_prototypes, bytes, and index and
        recall if any.

    Raises:
        NotFoundError: There is no ready code set of this name.
        UsageError: A new code is longer than the set's scale M: only a rebuild can hold it.
        BadInputError: Nothing lies in the region, neither before nor after.
        SpaceError: The index would not fit into the memory given.
        TransientError: Another process refreshes the code set, builds its index or moves it between servers.
    """
    code_set = code_queries.find_ready(conn, name)
    with alone(conn, code_set.code_set_id, name):
        queries.lock_code_set(conn, code_set)
        code_set = code_queries.find_ready(conn, name)  # as whoever had the lock before has left it
        model = model_queries.find_model_by_id(conn, code_set.model_id)
        held = queries.cells_of(conn, code_set)
        before = held[centres_inside(held, region_ewkb)]
        new = within_bounds(codes_of_region(conn, code_set, model, region_ewkb, datasets), code_set, before)
        if not len(before) and not len(new.made.ids):
            raise BadInputError(
                f"Neither code set {name} nor what model {model.name} has embedded lies in this region.",
                hint="Ingest and embed photos or tiles of the region first.",
            )
        if len(before) == len(held) and not len(new.made.ids):
            raise BadInputError(f"Code set {name} would be empty.", hint="Drop it with `geofix codes drop`.")
        change = _change(conn, code_set, before, new.made)
        result: dict[str, Any] = {"code_set": name, "cells": code_set.cells, "in_region": len(new.made.ids)}
        result |= {**change.counts, "in_place": True, "mean_prototypes": len(new.mean_prototypes)}
        if not len(change.replaced) and not len(change.rows.ids):  # whoever holds the codes may keep them
            return result | {"bytes": code_set.bytes}
        dead = queries.dead_entries(conn, code_set) + len(change.replaced)
        in_place = _may_stay(conn, code_set, region_ewkb, change, dead)
        config = _config(code_set, region_ewkb, before, new, change.counts, in_place)
        if in_place:
            made, more = _replaced(conn, code_set, config, change, dead)
        else:
            made, more = _succeeded(conn, code_set, config, change, memory_bytes)
        conn.commit()
    code_queries.drop_replaced(conn, name)
    _log.info("code set refreshed", name=name, in_place=in_place, **change.counts)
    return result | {"cells": made.cells, "in_place": in_place, "bytes": made.bytes, **more}


def _may_stay(conn: Connection, code_set: CodeSet, region: bytes, change: _Change, dead: int) -> bool:
    """Whether rows may be replaced where they are; `dead` entries would be in the index then."""
    key, most = code_set.code_set_id, max(dead, len(change.rows.ids))
    if is_distributed(conn, key) or move_of(conn, key) is not None or most > MOST_SHARE * code_set.cells:
        return False
    counted = int(code_set.index_parameters.get("dead_entries", 0))
    # What was rolled back has left entries, too, and it may have been here.
    overlaps = (dead - len(change.replaced) - counted) // max(1, len(change.rows.ids))
    if not counted or not len(change.replaced):  # no earlier one, or nothing that adds to them
        return overlaps < MOST_OVERLAPS
    box = shapely.box(*shapely.from_wkb(region).bounds)
    for note in reversed(code_set.config.get("refreshed", [])):
        if not note.get("in_place"):  # all was written anew then
            break
        replaced = note["changed"] + note["removed"] > 0
        overlaps += replaced and bool(shapely.intersects(box, shapely.box(*note["bounds"])))
    return overlaps < MOST_OVERLAPS


def _replaced(
    conn: Connection, code_set: CodeSet, config: dict[str, Any], change: _Change, dead: int
) -> tuple[CodeSet, dict[str, Any]]:
    """Replace rows where they are; the code set as it is then, and its recall if it has an index."""
    queries.replace_rows(conn, code_set, config, change.replaced, change.rows, dead_entries=dead)
    made = code_queries.find_code_set(conn, code_set.name)
    if "m" not in made.index_parameters:
        return made, {}
    index = {key: made.index_parameters[key] for key in ("m", "ef_construction", "dead_entries")}
    return made, _measured(conn, made, index)


def _succeeded(
    conn: Connection, code_set: CodeSet, config: dict[str, Any], change: _Change, memory_bytes: int
) -> tuple[CodeSet, dict[str, Any]]:
    """Write a successor and give it the name; it has an index, its recall measured, if the old one had."""
    temporary = f"{code_set.name} (in the making)"
    made_id = queries.write_successor(conn, code_set, temporary, config, change.replaced, change.rows)
    more = _indexed(conn, code_set, code_queries.find_code_set(conn, temporary), memory_bytes)
    code_queries.replace_code_set(conn, made_id, code_set.name)
    return code_queries.find_code_set(conn, code_set.name), more


def _indexed(conn: Connection, old: CodeSet, made: CodeSet, memory_bytes: int) -> dict[str, Any]:
    """Build the index that the old set had, and measure its recall."""
    if "m" not in old.index_parameters:
        return {}
    built = build_index(
        conn,
        made,
        m=int(old.index_parameters["m"]),
        ef_construction=int(old.index_parameters["ef_construction"]),
        memory_bytes=memory_bytes,
    )
    indexed = code_queries.find_code_set(conn, made.name)
    return _measured(conn, indexed, {**built, "code_set": old.name})


def _measured(conn: Connection, made: CodeSet, index: dict[str, Any]) -> dict[str, Any]:
    """What is said of an index, its recall measured now."""
    found = recall_with_photos(conn, made)
    return {"index": index, "recall": None if found is None else found.recall}


def _completed(code_set: CodeSet, made: CellVectors) -> NDArray[np.float32]:
    """Codes completed by the set's own scale.

    Raises:
        UsageError: One does not fit.
    """
    if not len(made.ids):
        return np.zeros((0, code_set.dimension), np.float32)
    longest = completion_norm(made.vectors, made.bias)
    if longest > code_set.scale * (1 + 1e-6):
        raise UsageError(
            f"A new code has length {longest:.4f}; code set {code_set.name} was completed to "
            f"{code_set.scale:.4f}.",
            hint="Build the code set again under a new name: `geofix codes build`.",
        )
    return complete_codes(made.vectors, made.bias, norm=max(longest, code_set.scale))


def _change(conn: Connection, code_set: CodeSet, before: NDArray[np.int64], made: CellVectors) -> _Change:
    """Cells that are new, gone, or have another code or other parts than before; others keep their row."""
    made = made.taken(np.argsort(made.ids, kind="stable"))  # type: ignore[arg-type]
    codes = _completed(code_set, made)
    held, old = queries.codes_of(conn, code_set, before)
    parts = queries.parts_of(conn, code_set, before)
    common, now, then = np.intersect1d(made.ids, held, assume_unique=True, return_indices=True)
    differs = np.abs(codes[now] - old[then].astype(np.float32)).max(axis=1, initial=0) > _SAME
    differs |= made.has_prototype[now] != parts[0][then]
    differs |= made.has_aerial[now] != parts[1][then]
    written = np.ones(len(made.ids), bool)
    written[now[~differs]] = False
    gone = np.setdiff1d(held, common, assume_unique=True)
    rows = NewRows(made.ids[written], codes[written], made.has_prototype[written], made.has_aerial[written])
    changed = int(differs.sum())
    counts = {"added": len(made.ids) - len(common), "removed": len(gone), "changed": changed}
    return _Change(np.sort(np.concatenate([gone, common[differs]])), rows, counts)


def _config(
    code_set: CodeSet,
    region: bytes,
    before: NDArray[np.int64],
    new: Refreshed,
    counts: dict[str, int],
    in_place: bool,
) -> dict[str, Any]:
    """The configuration with this refresh noted and the list of mean prototypes brought up to date."""
    marked = set(code_set.config.get("mean_prototypes", []))
    touched = np.concatenate([before, new.made.ids])
    level = int(s2.level(new.mean_prototypes[0])) if len(new.mean_prototypes) else None
    if marked:
        level = int(s2.level(s2.from_token(min(marked))))
    if level is not None and len(touched):
        marked -= set(s2.token(np.unique(s2.parent(touched, level))).tolist())
    marked |= set(s2.token(new.mean_prototypes).tolist())
    note = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "bounds": [float(value) for value in shapely.from_wkb(region).bounds],
        "in_place": in_place,
        **counts,
    }
    config = {**code_set.config, "refreshed": [*code_set.config.get("refreshed", []), note]}
    if marked or "mean_prototypes" in config:
        config["mean_prototypes"] = sorted(marked)
    return config
