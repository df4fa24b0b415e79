"""What is needed to read one aerial source again: where it is, how it lies, how it is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from geofix.errors import BadInputError

SourceKind = Literal["raster", "xyz", "extent"]


class RasterError(BadInputError):
    """A raster cannot be used; `reason` is a short code for the rejects table.

    Args:
        reason: One of ``unreadable``, ``truncated``, ``zero_sized``, ``missing_crs``, ``unknown_crs``,
            ``missing_georeference``, ``bad_transform``, ``not_showable``, ``outside_earth``,
            ``no_valid_pixels``, ``no_tiles``, ``missing_extent``, ``bad_extent``,
            ``symlink_outside``, ``bad_name``.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True)
class XyzLayout:
    """How a folder of Web Mercator tiles is laid out.

    Args:
        extension: File ending of the tiles without the dot.
        tile_px: Side of a tile in pixels.
        zooms: Zoom levels that have tiles, ascending.
        tms: Rows are counted from the south (TMS) instead of from the north (XYZ).
        fallback_zooms: How many zooms coarser or finer than the fitting one may fill in for missing tiles.
        blank_rgb: Colour of areas without imagery inside tiles, taken as invalid; None: there is none.
    """

    extension: str
    tile_px: int
    zooms: tuple[int, ...]
    tms: bool = False
    fallback_zooms: int = 0
    blank_rgb: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class RasterSource:
    """One readable aerial source: hashable, picklable, and storable as a database row.

    Args:
        uri: Path or URI of the raster, or folder of an XYZ pyramid.
        kind: ``raster`` (georeferenced), ``extent`` (plain picture, place given beside it), ``xyz``.
        crs: ``EPSG:n`` or WKT; replaces the file's own when `transform` is given or the file has none.
        transform: Six affine numbers (a, b, c, d, e, f), pixel corner -> CRS units; replaces the file's own.
        bands: Numbers (from 1) of the one or three bands to show; None: by colour interpretation.
        stretch: (low, high) per shown band, mapped to 0..255; None: values are shown as they are.
        xyz: Layout of the pyramid where kind is ``xyz``.
    """

    uri: str
    kind: SourceKind = "raster"
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    bands: tuple[int, ...] | None = None
    stretch: tuple[tuple[float, float], ...] | None = None
    xyz: XyzLayout | None = None

    def to_reading(self) -> dict[str, Any]:
        """The JSON object kept in the row: everything but uri, kind and CRS."""
        reading: dict[str, Any] = {}
        if self.transform is not None:
            reading["transform"] = list(self.transform)
        if self.bands is not None:
            reading["bands"] = list(self.bands)
        if self.stretch is not None:
            reading["stretch"] = [list(pair) for pair in self.stretch]
        if self.xyz is not None:
            reading["xyz"] = asdict(self.xyz)
        return reading

    @classmethod
    def from_row(cls, uri: str, kind: SourceKind, crs: str, reading: dict[str, Any]) -> RasterSource:
        """The source that `to_reading` described."""
        transform = reading.get("transform")
        stretch = reading.get("stretch")
        layout = reading.get("xyz")
        return cls(
            uri=uri,
            kind=kind,
            crs=crs,
            transform=None if transform is None else (*map(float, transform),),  # type: ignore[arg-type]
            stretch=None if stretch is None else tuple((float(low), float(high)) for low, high in stretch),
            bands=None if reading.get("bands") is None else tuple(int(band) for band in reading["bands"]),
            xyz=None if layout is None else XyzLayout(**{**layout, **_tuples(layout)}),
        )


def _tuples(layout: dict[str, Any]) -> dict[str, Any]:
    """The lists that JSON made of tuples, as tuples again."""
    return {key: tuple(value) for key, value in layout.items() if isinstance(value, list)}
