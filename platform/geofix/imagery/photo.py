"""Photos decoded with limits: what a file holds, and its pixels the right way up."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from geofix.errors import BadInputError
from geofix.imagery.exif import (
    EXIF_IFD,
    GPS_IFD,
    MAKE,
    MODEL,
    ORIENTATION,
    Gps,
    capture_time,
    parse_gps,
)
from geofix.settings import get_settings

pillow_heif.register_heif_opener()  # type: ignore[no-untyped-call, unused-ignore]
# Size is compared with the product's own limit before any pixel is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", message=".*EXIF", category=UserWarning, module="PIL")

EXTENSIONS: Mapping[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png"}),
    "WEBP": frozenset({".webp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "HEIF": frozenset({".heic", ".heif", ".hif"}),
    "AVIF": frozenset({".avif"}),
    "BMP": frozenset({".bmp"}),
}
PHOTO_EXTENSIONS = frozenset().union(*EXTENSIONS.values())
_PILLOW_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "BMP")
_JPEG_LIKE = ("JPEG", "MPO")
# Pillow turns TIFF itself; in HEIF the container's rotation counts, which libheif applies, and not EXIF's.
_TURNED_BY_DECODER = ("TIFF", "HEIF")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_CUT_SHORT = re.compile(r"truncat|end of file|premature|\beof\b|not enough|unexpected end", re.IGNORECASE)


class BadPhoto(BadInputError):
    """A file that cannot be used as a photo.

    Attributes:
        reason: Short code: `missing_file`, `unreadable`, `too_large`, `wrong_extension` (not an image),
            `bomb`, `truncated`.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (_bad_photo, (self.reason, self.message, self.hint))


def _bad_photo(reason: str, message: str, hint: str) -> BadPhoto:
    return BadPhoto(reason, message, hint=hint)


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """What a photo file holds, after every pixel of it was decoded once.

    Attributes:
        format: Key of `EXTENSIONS`, from the content.
        width: Pixels after orientation was applied.
        height: Pixels after orientation was applied.
        orientation: EXIF orientation as written, 1 to 8.
        sha256: Hash of the file's bytes, 32 bytes.
        file_bytes: Size of the file.
        file_mtime_ns: Modification time at the moment of reading.
        gps: Position, heading and accuracy; unchecked.
        captured_at: Aware time or None.
        time_assumed_utc: The camera named no zone and no GPS time, so UTC was assumed.
        make: Camera maker.
        model: Camera model.
    """

    format: str
    width: int
    height: int
    orientation: int
    sha256: bytes
    file_bytes: int
    file_mtime_ns: int
    gps: Gps
    captured_at: datetime | None
    time_assumed_utc: bool
    make: str | None
    model: str | None


def sniff_format(head: bytes) -> str | None:
    """Image format from a file's first 32 bytes, a key of `EXTENSIONS`; None when it is no image."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis"):
            return "AVIF"
        return "HEIF" if head[8:12] in _HEIF_BRANDS else None
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    return "BMP" if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" else None


def read_photo_info(
    path: str | os.PathLike[str], *, max_pixels: int | None = None, max_bytes: int | None = None
) -> PhotoInfo:
    """Read and verify one photo: every pixel is decoded, so that a cut file is found now, not in training.

    JPEG is decoded at an eighth of its size, which reads all of its data at a fraction of the cost.

    Args:
        path: The file.
        max_pixels: Reject above this many pixels before decoding; None: the settings' limit.
        max_bytes: Reject above this file size before reading; None: the settings' limit.

    Raises:
        BadPhoto: With its reason.
    """
    data, status = _read_file(Path(path), max_bytes or get_settings().max_photo_bytes)
    where = os.fsdecode(path)
    with _opened(data, where, max_pixels) as image:
        exif = _exif(image)
        width, height = image.size
        if image.format in _JPEG_LIKE:
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        image.load()
        if exif.orientation >= 5 and image.format not in _TURNED_BY_DECODER:
            width, height = height, width
    gps = parse_gps(exif.gps)
    captured_at, assumed = capture_time(exif.exif, gps.time)
    return PhotoInfo(
        format=sniff_format(data[:32]) or "JPEG",
        width=width,
        height=height,
        orientation=exif.orientation,
        sha256=hashlib.sha256(data).digest(),
        file_bytes=len(data),
        file_mtime_ns=status.st_mtime_ns,
        gps=gps,
        captured_at=captured_at,
        time_assumed_utc=assumed,
        make=exif.make,
        model=exif.model,
    )


def decode_photo(
    source: str | os.PathLike[str] | bytes,
    *,
    max_side: int | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> NDArray[np.uint8]:
    """Pixels of a photo, upright: (h, w, 3) RGB uint8. See `decode_image`."""
    image = decode_image(source, max_side=max_side, max_pixels=max_pixels, max_bytes=max_bytes)
    return np.array(image, dtype=np.uint8)


def decode_image(
    source: str | os.PathLike[str] | bytes,
    *,
    max_side: int | None = None,
    max_pixels: int | None = None,
    max_bytes: int | None = None,
) -> Image.Image:
    """A photo, upright, as Pillow holds it: what resizes next need not copy it.

    Args:
        source: A file, or its bytes.
        max_side: Shrink so that neither side exceeds this many pixels; JPEGs are then decoded at a reduced
            size of at least twice that, several times faster. None keeps the full size.
        max_pixels: As for `read_photo_info`.
        max_bytes: As for `read_photo_info`.

    Returns:
        Eight-bit RGB.

    Raises:
        BadPhoto: With its reason.
    """
    if isinstance(source, bytes):
        data, where = source, f"{len(source)} bytes"
    else:
        data, _ = _read_file(Path(source), max_bytes or get_settings().max_photo_bytes)
        where = os.fsdecode(source)
    with _opened(data, where, max_pixels) as image:
        orientation = 1 if image.format in _TURNED_BY_DECODER else _orientation(image)
        if max_side is not None and image.format in _JPEG_LIKE:
            image.draft("RGB", (2 * max_side, 2 * max_side))
        image.load()
        rgb = _to_rgb(image)
        if max_side is not None:
            rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=None)
        return _upright(rgb, orientation)


def decode_photo_at(uri: str, *, max_side: int | None = None) -> NDArray[np.uint8]:
    """Pixels of a photo by the URI under which it was ingested; see `decode_photo`.

    Args:
        uri: A path, `file://...`, or anything fsspec opens.
        max_side: As for `decode_photo`.

    Raises:
        BadPhoto: With its reason.
    """
    if uri.startswith("file://") or "://" not in uri:
        return decode_photo(Path(uri.removeprefix("file://")), max_side=max_side)
    with fsspec.open(uri, "rb") as stream:
        return decode_photo(bytes(stream.read(get_settings().max_photo_bytes + 1)), max_side=max_side)


def _read_file(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadPhoto("unreadable", f"{path} is not a regular file.")
            if status.st_size > max_bytes:
                raise BadPhoto(
                    "too_large",
                    f"{path} has {status.st_size:,} bytes, more than the limit of {max_bytes:,}.",
                    hint="Raise GEOFIX_MAX_PHOTO_BYTES if the file is genuine.",
                )
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise BadPhoto("missing_file", f"{path} does not exist.", hint="Check the path.") from error
    except OSError as error:
        raise BadPhoto("unreadable", f"{path} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise BadPhoto("truncated", f"{path} is empty.", hint="Copy the file again.")
    return data, status


@contextmanager
def _opened(data: bytes, where: str, max_pixels: int | None) -> Iterator[Image.Image]:
    """An image within the limits; whatever a decoder raises inside becomes `BadPhoto`."""
    limit = max_pixels or get_settings().max_photo_pixels
    if sniff_format(data[:32]) is None:
        raise BadPhoto(
            "wrong_extension",
            f"{where} is not an image: it begins with {data[:12]!r}.",
            hint="Remove the file or give it its real extension.",
        )
    Image.init()
    # Pillow's own guard raises at twice this number, already while opening.
    Image.MAX_IMAGE_PIXELS = limit
    try:
        with Image.open(io.BytesIO(data), formats=[f for f in _PILLOW_FORMATS if f in Image.OPEN]) as image:
            width, height = image.size
            if width * height > limit:
                raise BadPhoto(
                    "bomb",
                    f"{where} would decode to {width} x {height} = {width * height:,} pixels, "
                    f"more than the limit of {limit:,}.",
                    hint="Raise GEOFIX_MAX_PHOTO_PIXELS if the photo is genuine.",
                )
            yield image
    except BadPhoto:
        raise
    except Image.DecompressionBombError as error:
        raise BadPhoto(
            "bomb",
            f"{where} would decode to more than {2 * limit:,} pixels.",
            hint="Raise GEOFIX_MAX_PHOTO_PIXELS if the photo is genuine.",
        ) from error
    except Exception as error:  # decoders raise SyntaxError, struct.error, KeyError, EOFError and more
        cut = isinstance(error, EOFError) or _CUT_SHORT.search(str(error)) is not None
        raise BadPhoto(
            "truncated" if cut else "unreadable",
            f"{where} {'ends too early' if cut else 'cannot be decoded'}: {error}.",
            hint="Copy or download the file again.",
        ) from error


@dataclass(frozen=True, slots=True)
class _Exif:
    orientation: int
    gps: Mapping[int, Any]
    exif: Mapping[int, Any]
    make: str | None
    model: str | None


def _exif(image: Image.Image) -> _Exif:
    """EXIF blocks of an image; a broken header counts as an empty one."""
    try:
        header = image.getexif()
        return _Exif(
            _orientation(image),
            dict(header.get_ifd(GPS_IFD)),
            dict(header.get_ifd(EXIF_IFD)),
            _label(header.get(MAKE)),
            _label(header.get(MODEL)),
        )
    except Exception:  # the header is untrusted bytes; the pixels may still be fine
        return _Exif(1, {}, {}, None, None)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or the header is broken."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # untrusted bytes, as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _label(value: Any) -> str | None:
    text = re.sub(r"[\x00-\x1f\ud800-\udfff]", "", str(value)).strip()[:100] if value is not None else ""
    return text or None


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _TRANSPOSE.get(orientation)
    return image.transpose(method) if method is not None else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Eight-bit RGB; 16-bit greys keep their upper byte, transparency is laid on white."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        if values.max(initial=0) > 255:
            values = values / 257.0
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
