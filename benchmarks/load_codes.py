"""Loading codes: this product's loader against psql's COPY of the same rows as text, and against the ORM.

Every way fills a new leaf with its CHECKs of dimension and norm, on a private PostgreSQL with the product's
own settings (fsync on), and commits. Text COPY and the ORM load fewer rows, at whose rate all are counted.
Then the peak memory of a process that loads a tenth of the rows, and all of them.

    .venv/bin/python benchmarks/load_codes.py
    .venv/bin/python benchmarks/load_codes.py --rows 100000 --text-rows 20000 --orm-rows 2000 --json load.json
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import _codes
import numpy as np
from _bench import Goal, arguments, finish, say, server, server_settings, shared_data, table

from geofix.codes.matrix import CellMatrix

COLUMNS = "code_set_id, s2_id, code, has_prototype, has_aerial"
TEXT_OUT = f"COPY (SELECT {COLUMNS} FROM {{leaf}} ORDER BY s2_id LIMIT {{rows}}) TO STDOUT"


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--text-rows", type=int, default=100_000)
    parser.add_argument("--orm-rows", type=int, default=3_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--keep", type=Path, help="Folder of a cluster, made or used again.")
    options = parser.parse_args()
    options.json = None if options.json is None else options.json.resolve()
    load, data = os.getloadavg()[0], shared_data()
    options.text_rows = min(options.text_rows, options.rows)
    codes = _codes.made_codes(options.rows, options.dimension, data)
    say(_codes.describe(codes))
    with tempfile.TemporaryDirectory() as folder, server(options.keep) as conn:
        settings = server_settings(conn)
        say(", ".join(f"{name} = {value}" for name, value in settings.items()))
        matrix = codes.matrix(Path(folder))
        run = Run(conn, matrix, Path(folder), options.text_rows, options.orm_rows)
        run.prepare(codes)
        rates: dict[str, list[float]] = {name: [] for name in run.ways}
        for _ in range(options.repeats):
            for name, (rows, way) in run.ways.items():
                rates[name].append(rows / run.timed(way, rows))
        keys = run.key_seconds(len(codes))
        sizes = [len(codes) // 10, len(codes)]
        peaks = [peak_mb(run, rows) for rows in sizes]
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ours, text, orm = middle.values()
    table(
        [
            [
                name,
                f"{run.ways[name][0]:,}",
                f"{middle[name]:,.0f} rows/s ({min(values):,.0f} to {max(values):,.0f}, {len(values)} runs)",
                f"{len(codes) / middle[name]:,.1f} s",
            ]
            for name, values in rates.items()
        ],
        ["way", "rows loaded", "rate", f"{len(codes):,} rows at that rate"],
    )
    say(f"the keys of the leaf (one unique, one of the parent) and its statistics take {keys:.1f} s more")
    say(
        "peak memory of a loading process: "
        + ", ".join(f"{n:,} rows {p:.0f} MB" for n, p in zip(sizes, peaks, strict=True))
    )
    goals = [
        Goal("load codes", ours, 150_000, "rows/s"),
        Goal("... against ORM inserts", ours / orm, 20),
        Goal("... against text COPY by psql", ours / text, 3),
        Goal("peak memory of ten times the rows", peaks[1] / peaks[0], 1.1, at_least=False),
    ]
    figures = {"settings": settings, "rows_per_second": rates, "key_seconds": keys, "peak_mb": peaks}
    finish("load_codes", goals, options.json, load, {"codes": codes.told, **figures})


class Run:
    """The ways of loading into a leaf that is made for each, and goes afterwards."""

    def __init__(self, conn: Any, matrix: CellMatrix, folder: Path, text_rows: int, orm_rows: int) -> None:
        self.conn, self.matrix, self.folder = conn, matrix, folder
        self.ways = {
            "geofix": (len(matrix), self.loader),
            "text COPY by psql": (text_rows, self.text),
            "ORM (add_all, 1,000 a flush)": (orm_rows, self.orm),
        }
        self.text_file = folder / "codes.txt"
        self.orm_rows = orm_rows
        self.code_set_id = 0

    def prepare(self, codes: _codes.Codes) -> None:
        """A code set to load into, and the first rows as text, as PostgreSQL writes them."""
        from geofix.database import cluster
        from geofix.settings import get_settings

        self.url = cluster.database_url(get_settings())
        taken = self.conn.execute("SELECT code_set_id FROM geofix.code_set WHERE name = 'load'").fetchone()
        self.code_set_id = _codes.register(self.conn, codes, "load") if taken is None else taken[0]
        self.conn.commit()
        rows = self.ways["text COPY by psql"][0]
        leaf = self.make()
        self.loader(rows)
        statement = TEXT_OUT.format(leaf=leaf, rows=rows)
        with (
            self.text_file.open("wb") as file,
            self.conn.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            for block in copy:
                file.write(block)
        self.drop()

    def make(self) -> str:
        """A new, empty leaf; committed, so that every way sees it."""
        from geofix.database.queries import leaves

        leaf = leaves.create_leaf(self.conn, "cell_code", self.code_set_id, self.matrix.dimension)
        self.conn.commit()
        return leaf

    def drop(self) -> None:
        """Remove the leaf, and let the server write what waits, so that no way pays for another."""
        self.conn.execute(f"DROP TABLE {_codes.leaf(self.code_set_id)}")
        self.conn.commit()
        checkpoint()

    def timed(self, way: Any, rows: int) -> float:
        """Seconds of one way."""
        self.make()
        began = time.perf_counter()
        way(rows)
        took = time.perf_counter() - began
        found = self.conn.execute(f"SELECT count(*) FROM {_codes.leaf(self.code_set_id)}").fetchone()
        assert found[0] == rows, (found, rows)
        self.drop()
        return took

    def loader(self, rows: int) -> None:
        """The product's: binary COPY of arrays."""
        load(self.conn, self.code_set_id, _codes.stored_blocks(self.matrix, rows))
        self.conn.commit()

    def text(self, rows: int) -> None:
        """The same rows as a text file, by the client's own COPY."""
        program = shutil.which("psql")
        assert program, "psql is not on the PATH"
        command = f"\\copy {_codes.leaf(self.code_set_id)} ({COLUMNS}) FROM '{self.text_file}'"
        subprocess.run([program, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", command, self.url], check=True)

    def orm(self, rows: int) -> None:
        """Mapped objects, 1,000 a flush, one commit."""
        from pgvector import HalfVector
        from pgvector.sqlalchemy import HALFVEC
        from sqlalchemy import BigInteger, Boolean
        from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

        from geofix.database.engine import engine

        class Base(DeclarativeBase):
            pass

        class Code(Base):
            __tablename__ = f"cell_code_{self.code_set_id}"
            __table_args__ = ({"schema": "geofix_leaf"},)
            code_set_id = mapped_column(BigInteger)
            s2_id = mapped_column(BigInteger, primary_key=True, autoincrement=False)
            code = mapped_column(HALFVEC(self.matrix.dimension))
            has_prototype = mapped_column(Boolean)
            has_aerial = mapped_column(Boolean)

        with Session(engine()) as session:
            for block in _codes.stored_blocks(self.matrix, rows, step=1_000):
                session.add_all(
                    Code(
                        code_set_id=self.code_set_id,
                        s2_id=int(cell),
                        code=HalfVector(code),
                        has_prototype=True,
                        has_aerial=True,
                    )
                    for cell, code in zip(block.ids, block.codes, strict=True)
                )
                session.flush()
                session.expunge_all()
            session.commit()

    def key_seconds(self, rows: int) -> float:
        """Seconds that the key indexes and ANALYZE of a full leaf take."""
        from geofix.database.queries import leaves

        self.make()
        self.loader(rows)
        began = time.perf_counter()
        leaves.index_leaf_keys(self.conn, "cell_code", self.code_set_id)
        self.conn.commit()
        took = time.perf_counter() - began
        self.drop()
        return took


def load(conn: Any, code_set_id: int, blocks: Any) -> int:
    """Blocks into the leaf, by the function that `fill_leaf` loads with."""
    from geofix.database.bulk import copy_arrays
    from geofix.database.queries.code_ranges import CODE

    arrays = ((np.full(len(block.ids), code_set_id), *block) for block in blocks)
    return copy_arrays(conn, _codes.leaf(code_set_id), {"code_set_id": "int8", **CODE}, arrays)


def checkpoint() -> None:
    """Write all dirty pages of the server, as its superuser."""
    import psycopg

    from geofix.database.urls import admin_url
    from geofix.settings import get_settings

    with psycopg.connect(admin_url(get_settings()), autocommit=True) as conn:
        conn.execute("CHECKPOINT")


def peak_mb(run: Run, rows: int) -> float:
    """Peak resident memory of a fresh process that loads some rows, MB."""
    run.make()
    where = str(Path(run.matrix.codes.filename).parent)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(_loading, (where, rows, run.code_set_id))
    run.drop()
    return float(peak)


def _loading(where: str, rows: int, code_set_id: int) -> float:
    from geofix.database.engine import connect

    with connect() as conn:
        sent = load(conn, code_set_id, _codes.stored_blocks(CellMatrix.open(Path(where)), rows))
        assert sent == rows
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    return 0.0


if __name__ == "__main__":
    main()
