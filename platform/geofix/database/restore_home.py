"""Restore a dump of a database whose code sets were distributed: every code comes home to the new server.

pg_dump writes foreign tables with the servers they were on. Restored as they stand they would need those servers, and
would write into them what they hold already. Here they become ordinary tables.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import LiteralString

from psycopg import sql

from geofix.errors import ServiceError

FOREIGN_TABLE = re.compile(
    r"^CREATE FOREIGN TABLE (geofix_leaf\.\S+) \(\n(.*?)\n\)\nSERVER [^\n]*\nOPTIONS \(\n.*?\n\);",
    re.M | re.S,
)
# The pieces are here now, each with the index that its partition wants.
COME_HOME = """
DO $$
DECLARE item record;
BEGIN
  FOR item IN
    SELECT format('cell_code_%s_%s_%s', p.code_set_id, p.generation, p.piece) AS leaf, i.relname AS whole
    FROM geofix.shard_piece p
    JOIN pg_class i ON i.relkind = 'I' AND i.relnamespace = 'geofix_leaf'::regnamespace
    JOIN pg_index x ON x.indexrelid = i.oid AND x.indrelid = to_regclass('geofix_leaf.cell_code_' || p.code_set_id)
    WHERE p.state = 'live' AND p.shard_id IS NOT NULL
  LOOP
    EXECUTE format('CREATE INDEX %I ON geofix_leaf.%I (code_set_id, s2_id)', item.leaf || '_parent_key', item.leaf);
    EXECUTE format('ALTER INDEX geofix_leaf.%I ATTACH PARTITION geofix_leaf.%I', item.whole, item.leaf || '_parent_key');
  END LOOP;
END $$;
"""
# Also where no set was distributed: a restored registry may name shards, but their servers and logins are not here.
FORGET_SHARDS = """
DELETE FROM geofix.shard_move;
DELETE FROM geofix.shard_piece WHERE state <> 'live';
UPDATE geofix.shard_piece SET shard_id = NULL;
DELETE FROM geofix.shard
"""
# Restored indexes were built from the rows that there are.
FRESH_INDEXES = """
UPDATE geofix.code_set SET index_parameters = index_parameters - 'dead_entries' - 'dead_before'
WHERE index_parameters ?| '{dead_entries,dead_before}'
"""
AT_HOME = """
SELECT DISTINCT c.name FROM geofix.shard_piece p JOIN geofix.code_set c USING (code_set_id)
WHERE p.state = 'live' AND c.state IN ('ready', 'stale') ORDER BY 1
"""


def holds_foreign_tables(pg_restore: Path, file: Path) -> bool:
    """Whether a dump was made of distributed code sets.

    Raises:
        ServiceError: It cannot be read.
    """
    listed = _output([str(pg_restore), "--list", str(file)])
    return any(" FOREIGN TABLE geofix_leaf " in line for line in listed.splitlines())


def restore_home(pg_restore: Path, psql: Path, file: Path, target: str, environment: dict[str, str]) -> None:
    """Fill an empty database in one transaction, foreign tables as ordinary ones.

    psql takes the end of its input for the end of the script, whoever closed it: this process, killed, or its last
    pg_restore. So nothing but the very last line commits.

    Args:
        pg_restore: The program.
        psql: The program.
        file: The dump, made with the rows of foreign tables.
        target: Connection string without a password.
        environment: With the password, if any.

    Raises:
        ServiceError: A program failed; nothing was changed.
    """
    made = [str(pg_restore), "--no-owner", "--file=-", str(file)]
    tables = FOREIGN_TABLE.sub(r"CREATE TABLE \1 (\n\2\n);", _output([*made, "--section=pre-data"]))
    command = [str(psql), f"--dbname={target}", "--no-psqlrc", "--quiet"]
    command += ["--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as taking:
        assert taking.stdin is not None and taking.stderr is not None
        try:
            taking.stdin.write(f"BEGIN;\n{tables}".encode())
            taking.stdin.flush()
            for section in ("data", "post-data"):
                done = subprocess.run([*made, f"--section={section}"], stdout=taking.stdin, check=False)
                if done.returncode and _still_runs(taking):
                    raise ServiceError(f"pg_restore cannot read {file} to its end.")
            taking.stdin.write(f"{_text(COME_HOME)}{_text(FORGET_SHARDS)};\nCOMMIT;\n".encode())
            taking.stdin.close()
        except BrokenPipeError:
            pass  # its message says why
        except BaseException:
            taking.kill()
            raise
        said = taking.stderr.read().decode(errors="replace")
    if taking.returncode:
        lines = said.strip().splitlines() or ["no message"]
        raise ServiceError(f"psql failed: {lines[0]}", hint="Nothing was changed.")


def _text(statement: LiteralString) -> str:
    return sql.SQL(statement).as_string(None)


def _still_runs(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process goes on: one that failed takes a moment to end."""
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        return True
    return False


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServiceError(f"{Path(command[0]).name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
