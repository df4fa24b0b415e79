"""New codes for one region as a job."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from geofix.jobs.specs import Several, Specification, Work, register


@register
class Refresh(Specification):
    """Make the codes of one region again after new photos or tiles, without training."""

    kind: Literal["refresh"] = "refresh"
    code_set: str
    region: str
    datasets: Several[str] | None = None
    memory_mb: int = Field(512, ge=64)

    def run(self, work: Work) -> dict[str, Any]:
        """Replace the codes of the region; a second attempt finds them made."""
        from geofix.codes.refresh import refresh_region
        from geofix.ingest.region_text import region_ewkb

        return refresh_region(
            work.conn,
            self.code_set,
            region_ewkb(work.conn, self.region),
            datasets=self.datasets,
            memory_bytes=self.memory_mb << 20,
        )
