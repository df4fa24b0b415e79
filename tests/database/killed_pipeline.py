"""Run a pipeline and be killed at chosen SQL statements: killed_pipeline.py FILE KILL_AT... (0: never).

Every attempt is a process of its own, forked before any of them computes; prints the statements of the last.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psycopg
import torch
from psycopg.copy import LibpqWriter

from geofix.log import configure
from geofix.pipeline.run import run_pipeline


def attempt(file: Path, kill_at: int) -> int:
    """Run in this process; SIGKILL before the statement of that number."""
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting(cls, name):
        real = getattr(cls, name)

        def counted(self, *args, **given):
            count()
            return real(self, *args, **given)

        setattr(cls, name, counted)

    counting(psycopg.Cursor, "execute")
    counting(psycopg.Cursor, "copy")
    counting(psycopg.Connection, "commit")
    counting(LibpqWriter, "write")
    torch.set_num_threads(1)
    run_pipeline(file)
    return seen


def main() -> None:
    configure("ERROR")
    for kill_at in map(int, sys.argv[2:]):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writer, b"%d" % attempt(Path(sys.argv[1]), kill_at))
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        _, status = os.waitpid(child, 0)
        said = os.read(reader, 20).decode()
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, f"attempt {kill_at} ended with status {status}"
        print(kill_at, "killed" if killed else said, flush=True)


if __name__ == "__main__":
    main()
