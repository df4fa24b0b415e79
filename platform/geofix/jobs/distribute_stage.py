"""Spreading a code set over several servers as a job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from geofix.jobs.specs import Several, Specification, Work, register


@register
class Distribute(Specification):
    """Move a code set to shards, or home with `shards=local`; a further attempt goes on."""

    resumable = True

    kind: Literal["distribute"] = "distribute"
    code_set: str
    shards: Several[str] = Field(min_length=1)
    memory_mb: int = Field(512, ge=64)
    wait_s: float = Field(60.0, ge=0)

    def run(self, work: Work) -> dict[str, Any]:
        """Copy, index, prove, switch."""
        from geofix.database.shard_moves import distribute

        return distribute(
            work.conn,
            self.code_set,
            list(self.shards),
            memory_bytes=self.memory_mb << 20,
            wait_s=self.wait_s,
        )
