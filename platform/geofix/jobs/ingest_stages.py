"""Jobs that load photos, aerial imagery and regions."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import Field

from geofix.jobs.specs import AbsolutePath, PathOrUri, Several, Specification, Structured, Work, register


@register
class IngestPhotos(Specification):
    """Photos from a folder, a metadata file or both."""

    kind: Literal["ingest"] = "ingest"
    what: Literal["photos"] = "photos"
    path: AbsolutePath
    dataset: str
    metadata: AbsolutePath | None = None
    metadata_format: str | None = None
    columns: Structured[dict[str, str] | None] = None
    positions_only: bool = False
    any_extension: bool = False
    licence: str | None = None
    attribution: str | None = None
    workers: int = Field(0, ge=0)

    def run(self, work: Work) -> dict[str, Any]:
        """Load; batches that an earlier attempt committed are not read again."""
        from dataclasses import asdict

        from geofix.ingest.photos import ingest_photos

        result = ingest_photos(work.conn, **self.model_dump(exclude={"kind", "what"}))
        return asdict(result)


@register
class IngestAerial(Specification):
    """Rasters and tile pyramids as one source, and a tile for every cell they cover (not with level -1)."""

    kind: Literal["ingest"] = "ingest"
    what: Literal["aerial"] = "aerial"
    paths: Several[PathOrUri] = Field(min_length=1)
    source: str
    captured_at: date | None = None
    extents: AbsolutePath | None = None
    crs: str | None = None
    bands: Structured[tuple[int, ...] | None] = None
    tms: bool = False
    fallback_zooms: int = Field(0, ge=0)
    blank_rgb: Structured[tuple[int, int, int] | None] = None
    licence: str | None = None
    attribution: str | None = None
    tiles_level: int = Field(16, ge=-1, le=24)
    side_m: float = Field(154.0, gt=0)
    min_coverage: float = Field(0.5, ge=0, le=1)

    def run(self, work: Work) -> dict[str, Any]:
        """Register; rasters that an earlier attempt committed are left alone."""
        from dataclasses import asdict

        from geofix.ingest.aerial import ingest_aerial, register_tiles

        tiles = {"side_m": self.side_m, "min_coverage": self.min_coverage}
        given = self.model_dump(exclude={"kind", "what", "tiles_level", *tiles})
        result = asdict(ingest_aerial(work.conn, **given))
        if self.tiles_level >= 0:
            made = register_tiles(work.conn, source=self.source, level=self.tiles_level, **tiles)
            result["tiles"] = asdict(made)
        return result


@register
class IngestRegions(Specification):
    """The polygons of a file as regions of one level."""

    kind: Literal["ingest"] = "ingest"
    what: Literal["regions"] = "regions"
    path: AbsolutePath
    level: str
    code_field: str
    name_field: str
    dataset: str | None = None
    layer: str | None = None
    crs: str | None = None
    licence: str | None = None
    attribution: str | None = None

    def run(self, work: Work) -> dict[str, Any]:
        """Load in one transaction, which ends with the job."""
        from dataclasses import asdict

        from geofix.ingest.regions import ingest_regions

        given = self.model_dump(exclude={"kind", "what"})
        given["dataset"] = self.dataset or self.path.name.split(".")[0]
        return asdict(ingest_regions(work.conn, **given))
