"""Code sets: rows of `code_set`, their codes, blocks, index and recall checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from geofix.database.bulk import read_vectors
from geofix.database.engine import Connection
from geofix.database.queries import leaves
from geofix.errors import NotFoundError, SpaceError, UsageError

FIND = "SELECT * FROM geofix.code_set WHERE name = %(name)s"
LIST = """
SELECT s.*, m.name AS model,
       coalesce(nullif(pg_total_relation_size(to_regclass('geofix_leaf.cell_code_' || s.code_set_id)), 0), s.bytes) AS total_bytes,
       (SELECT recall FROM geofix.recall_check r WHERE r.code_set_id = s.code_set_id ORDER BY checked_at DESC LIMIT 1) AS recall
FROM geofix.code_set s JOIN geofix.model m USING (model_id) ORDER BY s.created_at
"""
INSERT = """
INSERT INTO geofix.code_set (name, model_id, snapshot_id, recipe, level, dimension, scale, kappa, temperature, block_level,
                             calibration, config)
VALUES (%(name)s, %(model_id)s, %(snapshot_id)s, %(recipe)s, %(level)s, %(dimension)s, %(scale)s, %(kappa)s,
        %(temperature)s, %(block_level)s, %(calibration)s, %(config)s)
RETURNING code_set_id
"""
FINISH = """
UPDATE geofix.code_set s SET state = 'ready', ready_at = now(), cells = c.cells, with_prototype = c.with_prototype,
       with_aerial = c.with_aerial, bytes = pg_total_relation_size(to_regclass(%(leaf)s))
FROM (SELECT count(*) AS cells, count(*) FILTER (WHERE has_prototype) AS with_prototype,
             count(*) FILTER (WHERE has_aerial) AS with_aerial
      FROM geofix.cell_code WHERE code_set_id = %(code_set_id)s) AS c
WHERE s.code_set_id = %(code_set_id)s
RETURNING s.cells, s.with_prototype, s.with_aerial, s.bytes
"""
BLOCKS = """
INSERT INTO geofix.cell_block (code_set_id, s2_id, lo, hi, cells, geom)
SELECT %(code_set_id)s, b.s2_id, r.lo, r.hi, b.cells, geofix.s2_polygon(b.s2_id)
FROM (SELECT geofix.s2_parent(s2_id, %(block_level)s) AS s2_id, count(*) AS cells
      FROM geofix.cell_code WHERE code_set_id = %(code_set_id)s GROUP BY 1) AS b
CROSS JOIN LATERAL geofix.s2_range(b.s2_id) AS r
ORDER BY b.s2_id
"""
SET_STATE = "UPDATE geofix.code_set SET state = %(state)s, stale_reason = %(reason)s WHERE code_set_id = %(code_set_id)s"
SET_INDEX = "UPDATE geofix.code_set SET index_parameters = %(parameters)s, bytes = %(bytes)s WHERE code_set_id = %(code_set_id)s"
# Rows that are gone when an index is built do not come into it.
DEAD_ROWS = "SELECT pg_stat_get_dead_tuples(to_regclass(%(leaf)s))"
SET_TEMPERATURE = """
UPDATE geofix.code_set SET temperature = %(temperature)s, calibration = %(calibration)s WHERE code_set_id = %(code_set_id)s
"""
DELETE = "DELETE FROM geofix.code_set WHERE code_set_id = %(code_set_id)s"
RETIRE = """
UPDATE geofix.code_set SET name = format('%%s (replaced %%s)', name, code_set_id), state = 'dropping',
       stale_reason = 'replaced by a newer build'
WHERE name = %(name)s RETURNING name
"""
RETIRED = """
SELECT name FROM geofix.code_set
WHERE state = 'dropping' AND starts_with(name, %(name)s || ' (replaced ') ORDER BY code_set_id
"""
RENAME = "UPDATE geofix.code_set SET name = %(name)s WHERE code_set_id = %(code_set_id)s"
INSERT_RECALL = """
INSERT INTO geofix.recall_check (code_set_id, k, queries, ef_search, scope, cells_in_scope, recall)
VALUES (%(code_set_id)s, %(k)s, %(queries)s, %(ef_search)s, %(scope)s, %(cells_in_scope)s, %(recall)s)
"""
READ = "SELECT s2_id, code FROM geofix.cell_code WHERE code_set_id = {} ORDER BY s2_id"
PAGE = """
SELECT s2_id, code FROM geofix.cell_code
WHERE code_set_id = {code_set_id} AND s2_id > {last} ORDER BY s2_id LIMIT {rows}
"""
READY = "to_char(ready_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')"
STAMPS = f"SELECT code_set_id, {READY} FROM geofix.code_set WHERE ready_at IS NOT NULL"
SEARCH = "SELECT s2_id, score, method, cells_in_scope FROM geofix.search_cells(%(query)s, %(k)s, %(code_set)s, NULL, %(exact_below)s)"
HNSW = "CREATE INDEX {index} ON {leaf} USING hnsw ((code::public.halfvec({dimension})) public.halfvec_ip_ops) WITH (m = {m}, ef_construction = {ef})"
SAMPLE = """
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e
WHERE e.model_id = {} ORDER BY hashint8(e.photo_id) LIMIT {}
"""

SEARCHABLE = ("ready", "stale")
# Of the blocks whose counts and outlines a search inside a region reads; coarser where the cells are.
BLOCK_LEVEL = 9


@dataclass(frozen=True)
class CodeSet:
    """One row of `code_set`."""

    code_set_id: int
    name: str
    model_id: int
    snapshot_id: int | None
    recipe: str
    level: int
    dimension: int
    state: str
    stale_reason: str | None
    scale: float
    kappa: float | None
    temperature: float | None
    cells: int
    with_prototype: int
    with_aerial: int
    bytes: int
    index_parameters: dict[str, Any]
    calibration: dict[str, Any]
    config: dict[str, Any]


def find_ready(conn: Connection, name: str) -> CodeSet:
    """The code set of a name, if it can be searched: ready, or stale.

    Raises:
        NotFoundError: There is none, or it is being built or dropped.
    """
    found = find_code_set(conn, name)
    if found.state not in SEARCHABLE:
        raise NotFoundError(f"Code set {name} is {found.state}.", hint="Wait, or build it again.")
    return found


def find_code_set(conn: Connection, name: str) -> CodeSet:
    """The code set of a name, whatever its state.

    Raises:
        NotFoundError: There is none; the message lists those there are.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(FIND, {"name": name}).fetchone()
    if row is None:
        names = [item["name"] for item in list_code_sets(conn)]
        raise NotFoundError(
            f"No code set is named {name!r}.",
            hint=f"There are: {', '.join(names)}." if names else "Build one with `geofix codes build`.",
        )
    return CodeSet(**{key: row[key] for key in CodeSet.__dataclass_fields__})


def list_code_sets(conn: Connection) -> list[dict[str, Any]]:
    """All code sets with their model, size and last recall."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST).fetchall()


def require_free(conn: Connection, name: str) -> None:
    """Refuse a name that a code set has.

    Raises:
        UsageError: It is taken.
    """
    if conn.execute(FIND, {"name": name}).fetchone() is not None:
        raise _taken(name)


def _taken(name: str) -> UsageError:
    return UsageError(
        f"A code set named {name!r} exists.", hint="Choose another name or `geofix codes drop` it."
    )


def insert_code_set(conn: Connection, values: Mapping[str, Any]) -> int:
    """Register a code set in state `building`; returns its id.

    Raises:
        UsageError: The name is taken.
    """
    require_free(conn, values["name"])
    document = {key: Jsonb(values[key]) for key in ("calibration", "config")}
    try:
        row = conn.execute(INSERT, {**values, **document}).fetchone()
    except psycopg.errors.UniqueViolation as error:  # another session was faster
        raise _taken(values["name"]) from error
    assert row is not None
    return int(row[0])


def replace_code_set(conn: Connection, code_set_id: int, name: str) -> str | None:
    """Give a new code set a name, and take it from the one that has it; the caller commits both together.

    Until then every other session searches the old one. Afterwards `drop_replaced` removes it, or `geofix gc`.

    Returns:
        What the old one is called now; None when there was none.
    """
    row = conn.execute(RETIRE, {"name": name}).fetchone()
    conn.execute(RENAME, {"name": name, "code_set_id": code_set_id})
    return None if row is None else str(row[0])


def drop_replaced(conn: Connection, name: str) -> int:
    """Remove what `replace_code_set` took this name from, now or before an interruption; commits."""
    names = [row[0] for row in conn.execute(RETIRED, {"name": name})]
    for old in names:
        drop_code_set(conn, find_code_set(conn, old))
        conn.commit()
    return len(names)


def block_level(level: int) -> int:
    """S2 level of the blocks of a code set whose cells are of this level."""
    return min(BLOCK_LEVEL, level)


def publish(conn: Connection, code_set_id: int, block_level: int) -> dict[str, int]:
    """Attach the leaf, count its blocks and mark the code set ready; the caller commits, all or nothing."""
    leaves.attach_leaf(conn, "cell_code", code_set_id)
    key = {"code_set_id": code_set_id}
    conn.execute(BLOCKS, {**key, "block_level": block_level})
    row = conn.execute(FINISH, {**key, "leaf": leaves.leaf_name("cell_code", code_set_id)}).fetchone()
    assert row is not None
    return dict(zip(("cells", "with_prototype", "with_aerial", "bytes"), map(int, row), strict=True))


def read_codes(conn: Connection, code_set: CodeSet) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """All codes of a set in S2 order: (n,) ids and (n, D + 2) fp16."""
    return read_vectors(
        conn, sql.SQL(READ).format(sql.Literal(code_set.code_set_id)), dimension=code_set.dimension
    )


def code_pages(
    conn: Connection, code_set: CodeSet, rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """All codes of a set in S2 order, so many at a time: (n,) ids and (n, D + 2) fp16."""
    last = int(np.iinfo(np.int64).min)
    while True:
        query = sql.SQL(PAGE).format(
            code_set_id=sql.Literal(code_set.code_set_id), last=sql.Literal(last), rows=sql.Literal(rows)
        )
        ids, codes = read_vectors(conn, query, dimension=code_set.dimension)
        if not len(ids):
            return
        yield ids, codes
        last = int(ids[-1])


def ready_stamps(conn: Connection) -> set[str]:
    """`<key>-<time it became ready>` of every code set: unlike a key alone, no other set ever has it."""
    return {f"{key}-{stamp}" for key, stamp in conn.execute(STAMPS).fetchall()}


def ready_stamp(conn: Connection, code_set: CodeSet) -> str:
    """The name of one set among `ready_stamps`.

    Raises:
        NotFoundError: It was dropped meanwhile, or is not ready.
    """
    for name in ready_stamps(conn):
        if name.startswith(f"{code_set.code_set_id}-"):
            return name
    raise NotFoundError(
        f"Code set {code_set.name} is not ready, or was dropped.", hint="List: geofix codes list."
    )


def find_with_stamp(conn: Connection, name: str) -> tuple[CodeSet, str | None]:
    """The code set of a name as `find_code_set`, and its name among `ready_stamps` if it is one of them.

    Whoever finds the same stamp later has seen the same codes all the while.
    """
    stamps = ready_stamps(conn)
    found = find_code_set(conn, name)
    return found, next((item for item in stamps if item.startswith(f"{found.code_set_id}-")), None)


def sample_photo_embeddings(conn: Connection, code_set: CodeSet, limit: int) -> NDArray[np.float16]:
    """Up to `limit` photo embeddings (n, D) of the code set's model, always the same ones."""
    query = sql.SQL(SAMPLE).format(sql.Literal(code_set.model_id), sql.Literal(limit))
    return read_vectors(conn, query, dimension=code_set.dimension - 2)[1]


def hnsw_bytes(cells: int, dimension: int, m: int) -> int:
    """Memory that building the graph needs: vectors (2 bytes a component) plus two layers of links.

    About m links of 8 bytes on each upper level and 2 m on the lowest, with 30 % for allocation.
    """
    return int(1.3 * cells * (2 * dimension + 8 * 2 * m * 1.1 + 64))


def build_hnsw(
    conn: Connection, code_set: CodeSet, *, m: int, ef_construction: int, memory_bytes: int, parallel: int
) -> int:
    """Build the HNSW index of a code set; returns the leaf's bytes.

    Raises:
        SpaceError: The graph cannot fit in `memory_bytes`; nothing was begun.
    """
    need = hnsw_bytes(code_set.cells, code_set.dimension, m)
    if need > memory_bytes:
        raise SpaceError(
            f"The graph of {code_set.name} ({code_set.cells:,} cells x {code_set.dimension}) needs about "
            f"{need / 1e6:,.0f} MB, {memory_bytes / 1e6:,.0f} MB are allowed.",
            hint="Raise --memory-mb, lower --m, or split the code set.",
        )
    name = f"cell_code_{code_set.code_set_id}"
    conn.execute("SELECT set_config('maintenance_work_mem', %s, true)", (f"{max(64, memory_bytes >> 20)}MB",))
    conn.execute("SELECT set_config('max_parallel_maintenance_workers', %s, true)", (str(parallel),))
    conn.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier("geofix_leaf", f"{name}_hnsw")))
    conn.execute(
        sql.SQL(HNSW).format(
            index=sql.Identifier(f"{name}_hnsw"),
            leaf=sql.Identifier("geofix_leaf", name),
            dimension=sql.Literal(code_set.dimension),
            m=sql.Literal(m),
            ef=sql.Literal(ef_construction),
        )
    )
    size = leaves.leaf_bytes(conn, "cell_code", code_set.code_set_id)
    parameters = {"method": "hnsw", "m": m, "ef_construction": ef_construction, "estimated_bytes": need}
    leaf = leaves.leaf_name("cell_code", code_set.code_set_id)
    dead = conn.execute(DEAD_ROWS, {"leaf": leaf}).fetchone()
    if dead is not None and dead[0]:
        parameters["dead_before"] = int(dead[0])
    set_index(conn, code_set.code_set_id, parameters, size)
    return size


def set_index(conn: Connection, code_set_id: int, parameters: Mapping[str, Any], size: int) -> None:
    """Note by which parameters an index was built, and the bytes of the codes with it."""
    conn.execute(
        SET_INDEX, {"code_set_id": code_set_id, "parameters": Jsonb(dict(parameters)), "bytes": size}
    )


def search(
    conn: Connection, code_set: CodeSet, query: Any, k: int, *, exact_below: int = 10_000
) -> tuple[list[int], str]:
    """Ids of `search_cells` in rank order, and which way it went."""
    rows = conn.execute(
        SEARCH, {"query": query, "k": k, "code_set": code_set.name, "exact_below": exact_below}
    ).fetchall()
    return [row[0] for row in rows], rows[0][2] if rows else "exact"


def store_recall(conn: Connection, values: Mapping[str, Any]) -> None:
    """Append one recall measurement to the time series."""
    conn.execute(INSERT_RECALL, values)


def set_state(conn: Connection, code_set_id: int, state: str, reason: str | None = None) -> None:
    """Change the state of a code set."""
    conn.execute(SET_STATE, {"code_set_id": code_set_id, "state": state, "reason": reason})


def set_temperature(
    conn: Connection, code_set_id: int, temperature: float, calibration: Mapping[str, Any]
) -> None:
    """Store the fitted temperature and how it was fitted."""
    conn.execute(
        SET_TEMPERATURE,
        {"code_set_id": code_set_id, "temperature": temperature, "calibration": Jsonb(dict(calibration))},
    )


def drop_code_set(conn: Connection, code_set: CodeSet) -> None:
    """Remove a code set with its leaf; evaluations keep their rows."""
    set_state(conn, code_set.code_set_id, "dropping")
    leaves.drop_leaf(conn, "cell_code", code_set.code_set_id)
    conn.execute(DELETE, {"code_set_id": code_set.code_set_id})
