"""A code set with its index for the benchmarks of search, built once per folder, and ways of asking it."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _codes
import numpy as np
from _bench import arguments, say
from numpy.typing import NDArray
from pgvector import HalfVector

from geofix.codes.index import build_index
from geofix.database.queries import codes as code_queries

K = 10
OURS = "SELECT s2_id, method, cells_in_scope FROM geofix.search_cells(%(q)s, %(k)s, %(name)s)"
OURS_IN = "SELECT s2_id, method, cells_in_scope FROM geofix.search_cells(%(q)s, %(k)s, %(name)s, %(region)s)"
BY_HAND = """
SELECT s2_id FROM {leaf} WHERE {condition} ORDER BY code::halfvec({dimension}) <#> %(q)s LIMIT %(k)s
"""
# Without the cast no index can answer.
EXACT = "SELECT s2_id FROM {leaf} WHERE {condition} ORDER BY code <#> %(q)s, s2_id LIMIT %(k)s"
SETTINGS = """
SELECT set_config('hnsw.ef_search', %(ef)s, false), set_config('hnsw.iterative_scan', %(scan)s, false)
"""


@dataclass(frozen=True)
class Stored:
    """An indexed code set: its key, and what making it took."""

    code_set_id: int
    name: str
    dimension: int
    made: dict[str, float]

    def by_hand(self, condition: str = "true") -> str:
        """SQL as a user of pgvector writes it."""
        leaf = _codes.leaf(self.code_set_id)
        return BY_HAND.format(leaf=leaf, condition=condition, dimension=self.dimension)

    def exact(self, condition: str = "true") -> str:
        """SQL that reads every row in scope."""
        return EXACT.format(leaf=_codes.leaf(self.code_set_id), condition=condition)


@dataclass
class Answers:
    """Of one way: seconds of every query and round, the last round's answers."""

    seconds: list[list[float]] = field(default_factory=list)
    found: list[list[int]] = field(default_factory=list)
    recall: float = 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds over all queries and rounds."""
        return 1e3 * float(np.quantile(np.concatenate(self.seconds), share))

    def told(self) -> list[str]:
        """Recall, p50 with its spread over the rounds, p95."""
        rounds = [1e3 * statistics.median(times) for times in self.seconds]
        p50 = f"{self.percentile(0.5):,.2f} ms ({min(rounds):,.2f} to {max(rounds):,.2f})"
        return [f"{self.recall:.3f}", p50, f"{self.percentile(0.95):,.2f} ms"]


def options_of(doc: str | None, *, repeats: int, queries: int, per: str = "") -> argparse.Namespace:
    """What the benchmarks of search are told on the command line; paths are absolute."""
    parser = arguments(doc, repeats=repeats)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=queries, help=per)
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=64)
    parser.add_argument("--keep", type=Path, help="Folder of cluster and indexes, made or used again.")
    options = parser.parse_args()
    options.json = None if options.json is None else options.json.resolve()
    options.keep = None if options.keep is None else options.keep.resolve()
    return options


def stored(conn: Any, codes: _codes.Codes, folder: Path, *, m: int = 16, ef: int = 64) -> Stored:
    """Load and index codes unless the cluster has them; commits."""
    name = f"codes-{len(codes)}-{codes.dimension}-{m}-{ef}"
    notes = folder / f"{name}.json"
    if notes.exists():
        made = json.loads(notes.read_text())
        say(f"{name} is there: {made}")
        found = code_queries.find_code_set(conn, name)
        return Stored(found.code_set_id, name, codes.dimension, made)
    began = time.perf_counter()
    code_set_id = _codes.load(conn, codes, name, _codes.stored_blocks(codes.matrix(folder)))
    loaded = time.perf_counter()
    say(f"{len(codes):,} codes are loaded in {loaded - began:.0f} s; their index is built")
    code_set = code_queries.find_code_set(conn, name)
    build_index(conn, code_set, m=m, ef_construction=ef, memory_bytes=memory(len(codes), codes.dimension, m))
    conn.commit()
    took = time.perf_counter() - loaded
    conn.execute(f"ANALYZE {_codes.leaf(code_set_id)}")
    conn.commit()
    sizes = conn.execute(
        "SELECT pg_relation_size(%s::regclass), pg_relation_size(%s::regclass)",
        (_codes.leaf(code_set_id), f"{_codes.leaf(code_set_id)}_hnsw"),
    ).fetchone()
    made = {"load_s": loaded - began, "index_s": took, "table_bytes": sizes[0], "index_bytes": sizes[1]}
    notes.write_text(f"{json.dumps(made)}\n")
    say(f"the index took {took:.0f} s and {sizes[1] / 1e6:,.0f} MB (m = {m}, ef_construction = {ef})")
    return Stored(code_set_id, name, codes.dimension, made)


def memory(rows: int, dimension: int, m: int) -> int:
    """What the build is allowed: a quarter more than the product thinks that it needs."""
    return max(64 << 20, int(1.25 * code_queries.hnsw_bytes(rows, dimension, m)))


def settings(conn: Any, ef: int, scan: str = "off") -> None:
    """What a hand-written query would set for its session."""
    conn.execute("SELECT NULL::halfvec")  # the module, whose settings these are, is loaded
    conn.execute(SETTINGS, {"ef": str(ef), "scan": scan})


def ask(conn: Any, statement: str, queries: NDArray[np.float32], **more: Any) -> Callable[[], Any]:
    """A function that asks every query and returns seconds and ids of each."""
    given = [{"q": HalfVector(query.astype(np.float16)), "k": K, **more} for query in queries]

    def asked() -> tuple[list[float], list[list[int]]]:
        seconds, found = [], []
        for values in given:
            began = time.perf_counter()
            rows = conn.execute(statement, values).fetchall()
            seconds.append(time.perf_counter() - began)
            found.append([row[0] for row in rows])
        return seconds, found

    return asked


def in_rounds(
    conn: Any,
    ways: Mapping[str, tuple[Callable[[], None], Callable[[], Any]]],
    exact: NDArray[np.int64],
    rounds: int,
) -> dict[str, Answers]:
    """Every way once per round, after one round that warms up; each first sets what it needs."""
    made = {name: Answers() for name in ways}
    for turn in range(rounds + 1):
        for name, (before, way) in ways.items():
            before()
            seconds, made[name].found = way()
            if turn:
                made[name].seconds.append(seconds)
    conn.execute("RESET hnsw.ef_search")
    conn.execute("RESET hnsw.iterative_scan")
    conn.commit()
    for answers in made.values():
        answers.recall = _codes.recall(answers.found, exact[: len(answers.found)])
    return made
