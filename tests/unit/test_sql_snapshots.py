"""Every SQL text in Python is written out to tests/sql_snapshots/, so that a review sees SQL as SQL.

After a change: UPDATE_SQL=1 pytest tests/unit/test_sql_snapshots.py, read the diff, commit it.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from test_house import PACKAGES, SQL, docstrings, sources

SNAPSHOTS = Path(__file__).resolve().parents[1] / "sql_snapshots"
DATABASE = PACKAGES["geofix"] / "database"
ALSO = re.compile(r"\s*(DO\s+\$|RESET\s+\w|LOCK\s+TABLE|REINDEX\s|REFRESH\s)")
UPDATE = os.environ.get("UPDATE_SQL") == "1"


def modules() -> dict[str, Path]:
    """Modules below geofix.database: name below it -> file; the declaration of tables has no SQL."""
    names = {path: path.relative_to(DATABASE).with_suffix("").parts for path in sources(DATABASE)}
    return {
        ".".join(parts): path
        for path, parts in names.items()
        if parts[-1] != "__init__" and parts[0] != "schema"
    }


def is_sql(text: str) -> bool:
    return bool(SQL.match(text) or ALSO.match(text))


def texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """SQL in a constant: text, a piece of psycopg.sql, or several of them."""
    if isinstance(value, Mapping | list | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from texts(f"{name}[{key!r}]", item)
    text = value.as_string(None) if isinstance(value, sql.Composable) else value
    if isinstance(text, str) and is_sql(text):
        yield name, text


def constants(tree: ast.Module, module: Any) -> Iterator[tuple[str, str]]:
    """Constants in capitals, in the order of the file, with their values as Python made them."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                yield from texts(target.id, getattr(module, target.id))


def inline(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """SQL inside functions, under the function's name."""
    spared = docstrings(tree)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        pieces = {
            id(part) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(function):
            if id(node) in spared or id(node) in pieces:
                continue
            spared.add(id(node))  # a function within a function is walked twice
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and is_sql(node.value):
                yield f"{function.name}()", node.value
            elif isinstance(node, ast.JoinedStr):
                shown = "".join(
                    str(part.value)
                    if isinstance(part, ast.Constant)
                    else f"{{{ast.unparse(part)[2:-1].strip('{}')}}}"
                    for part in node.values
                )
                if is_sql(shown):
                    yield f"{function.name}()", shown


def written(name: str) -> str:
    """What the snapshot of a module should hold; empty when the module has no SQL."""
    path = modules()[name]
    tree = ast.parse(path.read_text())
    found = [*constants(tree, importlib.import_module(f"geofix.database.{name}")), *inline(tree)]
    blocks = []
    for title, text in found:
        lines = [line.rstrip() for line in textwrap.dedent(text).strip().splitlines()]
        blocks.append("\n".join([f"-- {title}", *lines]) + "\n")
    return "\n".join(blocks)


def test_constants_fragments_and_inline_sql_are_found() -> None:
    jobs = written("queries.jobs")
    assert "-- CLAIM\n" in jobs and "NOT EXISTS (SELECT 1 FROM unnest(j.depends_on)" in jobs
    assert "-- add_embeddings()\nCREATE TEMP TABLE" in written("queries.models")
    assert "-- STAGE\n" not in written("queries.photo_stage")  # a name, no statement


@pytest.mark.parametrize("name", modules())
def test_sql_is_as_written_out(name: str) -> None:
    now, file = written(name), SNAPSHOTS / f"{name}.sql"
    if UPDATE:
        SNAPSHOTS.mkdir(exist_ok=True)
        file.write_text(now) if now else file.unlink(missing_ok=True)
    before = file.read_text() if file.is_file() else ""
    change = "".join(
        difflib.unified_diff(before.splitlines(True), now.splitlines(True), str(file), "now", n=2)
    )
    assert before == now, f"SQL of geofix.database.{name} changed: UPDATE_SQL=1 pytest {__file__}\n{change}"


def test_no_snapshot_is_left_of_a_module_that_is_gone() -> None:
    left = {path.stem for path in SNAPSHOTS.glob("*.sql")} - modules().keys()
    if UPDATE:
        for name in left:
            (SNAPSHOTS / f"{name}.sql").unlink()
        left = set()
    assert left == set()
