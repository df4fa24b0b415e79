"""Logs of changes, written by triggers, that kept counts are compared with: how long they are, and forgetting them."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from geofix.database.engine import Connection


@dataclass(frozen=True)
class ChangeLog:
    """The statements of one log.

    Attributes:
        rows: Its rows, and its bytes.
        hold: Keeps everybody else from writing into it, or fails at once.
        fold: What fits goes on fitting an empty log, all else never does again.
        empty: Removes its rows.
    """

    rows: str
    hold: str
    fold: str
    empty: str

    def size(self, conn: Connection) -> tuple[int, int]:
        """Rows of the log, and its bytes."""
        row = conn.execute(self.rows).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def forget(self, conn: Connection) -> bool:
        """Empty the log; the caller commits.

        Returns:
            False where another session is writing into it; nothing was changed then.
        """
        try:
            with conn.transaction():
                conn.execute(self.hold)
                conn.execute(self.fold)
                conn.execute(self.empty)
        except psycopg.errors.LockNotAvailable:
            return False
        return True
