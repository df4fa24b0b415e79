"""Retention as a job: what `geofix gc` does."""

from __future__ import annotations

from typing import Any, Literal

from geofix.jobs.specs import Specification, Work, register


@register
class Retention(Specification):
    """Remove what nothing refers to and what is older than GEOFIX_KEEP_* says."""

    resumable = True

    kind: Literal["retention"] = "retention"

    def run(self, work: Work) -> dict[str, Any]:
        """Find and remove, step by step."""
        from geofix.database.garbage import collect
        from geofix.settings import get_settings

        items = collect(work.conn, get_settings())
        removed = [item for item in items if item.state == "removed"]
        return {"removed": len(removed), "bytes": sum(item.bytes for item in removed)}
