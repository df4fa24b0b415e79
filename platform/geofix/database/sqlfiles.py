"""Repeatable SQL files: functions, views and grants, applied after every upgrade, with a drift check."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any, cast

import psycopg

RECORD = """
INSERT INTO geofix.sql_file (name, sha256) VALUES (%(name)s, %(sha256)s)
ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()
"""
FORGET = "DELETE FROM geofix.sql_file WHERE NOT name = ANY (%(names)s)"
APPLIED = "SELECT name, sha256 FROM geofix.sql_file ORDER BY name"


@dataclass(frozen=True)
class SqlFile:
    """One repeatable file; its number is the load order and the topic."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text, in hex."""
        return sha256(self.text.encode()).hexdigest()


def sql_files() -> list[SqlFile]:
    """All repeatable files in load order."""
    folder = files("geofix.database") / "sql"
    return [
        SqlFile(entry.name, entry.read_text(encoding="utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda item: item.name)
        if entry.name.endswith(".sql")
    ]


def apply_sql_files(conn: psycopg.Connection[Any]) -> list[str]:
    """Apply every file in the caller's transaction and record its hash.

    Returns:
        Names of the files, in order.
    """
    shipped = sql_files()
    for file in shipped:
        conn.execute(cast(Any, file.text).encode())
    for file in shipped:
        conn.execute(RECORD, {"name": file.name, "sha256": file.sha256})
    conn.execute(FORGET, {"names": [file.name for file in shipped]})
    return [file.name for file in shipped]


def drift(conn: psycopg.Connection[Any]) -> list[str]:
    """Differences between the files shipped and those applied; empty when there are none."""
    applied = dict(cast("list[tuple[str, str]]", conn.execute(APPLIED).fetchall()))
    found = []
    for file in sql_files():
        if file.name not in applied:
            found.append(f"{file.name}: not applied")
        elif applied.pop(file.name) != file.sha256:
            found.append(f"{file.name}: differs from what was applied")
    found += [f"{name}: applied, but no longer shipped" for name in applied]
    return found
