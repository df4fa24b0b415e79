"""S2 cells on NumPy arrays: ids as int64 in two's complement, scalars and arrays of any shape alike.

Ids, parents, ranges, tokens and neighbours equal those of the official `s2geometry` library. Work is done in
chunks, so memory beyond the result does not grow with the number of points. Cells of two faces in three sort
before the others as signed integers; a cell's descendants are one contiguous range all the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, UsageError
from geofix.spatial import hilbert, outline
from geofix.spatial.faces import checked_lonlat, face_st_to_lonlat, lonlat_to_face_st
from geofix.spatial.hilbert import LEAF_COUNT
from geofix.spatial.hilbert import MAX_LEVEL as MAX_LEVEL

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CHUNK = 1 << 14
_LSB_POSITIONS = 0x1555555555555555
_EDGE_STEPS = ((0, -1), (1, 0), (0, 1), (-1, 0))
_CORNER_STEPS = ((-1, -1), (1, -1), (1, 1), (-1, 1))
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[_HEX] = np.arange(16)
_NIBBLE[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


def cell_at(lon: ArrayLike, lat: ArrayLike, level: int = MAX_LEVEL, *, threads: int = 1) -> Ints:
    """Id of the cell that contains each position.

    Args:
        lon: Degrees, -180..180.
        lat: Degrees, -90..90, broadcast against lon.
        level: 0 (a face of the cube) to 30 (about a centimetre).
        threads: Share the chunks out to so many; NumPy computes without the interpreter's lock. The ids are
            the same; fewer than about 100,000 positions gain nothing.

    Raises:
        BadInputError: A coordinate is NaN or out of range.
        UsageError: The level is not 0..30, or there is no thread.
    """
    _checked_level(level)
    if threads < 1:
        raise UsageError(f"{threads} threads cannot compute cells.", hint="Use 1 or more.")
    x, y = checked_lonlat(lon, lat)
    flat_x, flat_y = x.ravel(), y.ravel()
    out = np.empty(flat_x.size, np.int64)
    lsb = 1 << 2 * (MAX_LEVEL - level)

    def fill(start: int) -> None:
        part = slice(start, start + _CHUNK)
        face, s, t = lonlat_to_face_st(flat_x[part], flat_y[part])
        leaf = hilbert.encode(face, _leaf_coordinate(s), _leaf_coordinate(t))
        out[part] = (leaf & -lsb) | lsb

    starts = range(0, out.size, _CHUNK)
    if threads == 1 or len(starts) < 2:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(min(threads, len(starts)), thread_name_prefix="s2") as pool:
            for _ in pool.map(fill, starts):
                pass
    return _as(out, x.shape)


def _leaf_coordinate(s: Floats) -> Ints:
    return np.clip(np.rint(LEAF_COUNT * s - 0.5).astype(np.int64), 0, LEAF_COUNT - 1)


def is_valid(ids: ArrayLike) -> NDArray[np.bool_]:
    """Whether each number is the id of a cell."""
    bits = _integers(ids)
    good: NDArray[np.bool_] = (((bits >> 61) & 7) < 6) & ((_lsb(bits) & _LSB_POSITIONS) != 0)
    return good


def level(ids: ArrayLike) -> Ints:
    """Level of each cell, 0..30.

    Raises:
        BadInputError: A number that is not a cell id (so in every function below).
    """
    return _as(_level(_checked(ids)), np.shape(ids))


def parent(ids: ArrayLike, level: ArrayLike) -> Ints:
    """The ancestor of each cell at a level (one level, or one per cell) no finer than its own."""
    cells = _checked(ids)
    wanted = np.asarray(level)
    if wanted.dtype.kind not in "iu" or np.any((wanted < 0) | (wanted > MAX_LEVEL)):
        raise UsageError(f"Level {level!r} is not an integer 0..{MAX_LEVEL}.")
    lsb = np.int64(1) << (2 * (MAX_LEVEL - wanted.astype(np.int64)))
    finer = _lsb(cells) > lsb
    if np.any(finer):
        bad = np.broadcast_to(cells, finer.shape)[finer][0]
        raise UsageError(
            f"Cell {token(bad)} is of level {_level(np.asarray(bad))}: no parent at level {wanted.max()}."
        )
    return _as((cells & -lsb) | lsb)


def range_of(ids: ArrayLike) -> tuple[Ints, Ints]:
    """First and last leaf id of each cell, both inclusive: its descendants of every level lie between."""
    cells = _checked(ids)
    rest = _lsb(cells) - 1
    return _as(cells - rest), _as(cells + rest)


def children(ids: ArrayLike) -> Ints:
    """The four children of each cell in the order of the curve, shape (..., 4)."""
    cells = _checked(ids)
    step = _lsb(cells) >> 2
    if np.any(step == 0):
        bad = cells[step == 0].flat[0] if cells.ndim else cells
        raise UsageError(f"Cell {token(bad)} is a leaf (level {MAX_LEVEL}) and has no children.")
    out: Ints = cells[..., None] + step[..., None] * np.array([-3, -1, 1, 3])
    return out


def center(ids: ArrayLike) -> tuple[Floats, Floats]:
    """Longitude and latitude in degrees of each cell's centre."""
    cells = _checked(ids)
    flat = cells.ravel()
    lon, lat = np.empty(flat.size), np.empty(flat.size)
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        face, i, j, size = squares(flat[part])
        half = 0.5 * size
        lon[part], lat[part] = face_st_to_lonlat(face, (i + half) / LEAF_COUNT, (j + half) / LEAF_COUNT)
    return lon.reshape(cells.shape)[()], lat.reshape(cells.shape)[()]


def corners(ids: ArrayLike) -> Floats:
    """Longitude and latitude in degrees of the four corners, counter-clockwise, shape (..., 4, 2).

    A corner at a pole has longitude 0, one on the 180th meridian either sign whatever side its cell is on.
    """
    cells = _checked(ids)
    face, i, j, size = squares(cells.ravel())
    return outline.ring(face, i, j, size, 1).reshape((*cells.shape, 4, 2))


def polygon(ids: ArrayLike) -> Any:
    """Each cell as a shapely geometry in degrees, within -180..180 and -90..90.

    A cell at a pole reaches it along the full width of its longitudes. No cell but a face itself crosses the
    180th meridian; such a face is a MultiPolygon split there. Edges of cells are geodesics; those coarser
    than level 10 get points at most 11 km apart, and the outline departs from the true one by at most
    2.5 m * tan(latitude).

    Returns:
        A geometry for a scalar, else an object array of the ids' shape.
    """
    cells = _checked(ids)
    face, i, j, size = squares(cells.ravel())
    out = outline.polygons(face, i, j, size)
    return out.reshape(cells.shape)[()]


def token(ids: ArrayLike) -> NDArray[np.str_]:
    """S2 tokens: the id in hexadecimal without trailing zeros, at most 16 characters."""
    cells = _checked(ids)
    flat = cells.ravel()
    out = np.empty(flat.size, "U16")
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        nibbles = (part[:, None] >> np.arange(60, -1, -4)) & 15
        used = 16 - (_trailing_zeros(part) // 4)
        text = np.where(np.arange(16) < used[:, None], _HEX[nibbles], 0).astype(np.uint8)
        out[start : start + _CHUNK] = np.ascontiguousarray(text).view("S16")[:, 0].astype("U16")
    return out.reshape(cells.shape)[()]


def from_token(tokens: ArrayLike) -> Ints:
    """Ids of S2 tokens (upper or lower case).

    Raises:
        BadInputError: A text that is not the token of a cell.
    """
    texts = np.asarray(tokens)
    flat = texts.ravel().astype(str)
    out = np.empty(flat.size, np.int64)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        length = np.char.str_len(part)
        try:
            raw = part.astype("S16")
        except UnicodeEncodeError:
            raw = np.zeros(part.size, "S16")
        nibbles = _NIBBLE[np.ascontiguousarray(raw).view(np.uint8).reshape(-1, 16)]
        beyond = np.arange(16) >= length[:, None]
        ok = ((nibbles < 16) | beyond).all(axis=1) & (length > 0) & (length <= 16)
        digits = np.where(beyond | (nibbles > 15), 0, nibbles).astype(np.int64)
        cells = np.bitwise_or.reduce(digits << np.arange(60, -1, -4), axis=1)
        ok &= is_valid(cells)
        if not ok.all():
            where = int(np.argmin(ok))
            raise BadInputError(
                f"{str(part[where])!r} at position {start + where} is not the token of an S2 cell.",
                hint="Tokens are 1 to 16 hexadecimal digits; a spreadsheet may have made numbers of them.",
            )
        out[start : start + _CHUNK] = cells
    return _as(out, texts.shape)


def edge_neighbors(ids: ArrayLike) -> Ints:
    """The four cells of the same level that share an edge, counter-clockwise from below, shape (..., 4)."""
    return _neighbors(_checked(ids), _EDGE_STEPS)


def neighbors(ids: ArrayLike) -> Ints:
    """Cells of the same level that share an edge (first four) or only a corner (last four), shape (..., 8).

    Where three faces of the cube meet, a cell has no neighbour across that corner: its place holds 0, which
    is never a cell id. A face itself (level 0) has four neighbours and four zeros.
    """
    return _neighbors(_checked(ids), _EDGE_STEPS + _CORNER_STEPS)


def _neighbors(cells: Ints, steps: tuple[tuple[int, int], ...]) -> Ints:
    flat = cells.ravel()
    out = np.empty((flat.size, len(steps)), np.int64)
    for start in range(0, flat.size, _CHUNK):
        face, i, j, size = squares(flat[start : start + _CHUNK])
        lsb = size * size
        for k, (di, dj) in enumerate(steps):
            out[start : start + _CHUNK, k] = _cell_beside(face, i + di * size, j + dj * size, lsb)
    return out.reshape((*cells.shape, len(steps)))


def _cell_beside(face: Ints, i: Ints, j: Ints, lsb: Ints) -> Ints:
    i_out, j_out = (i < 0) | (i >= LEAF_COUNT), (j < 0) | (j >= LEAF_COUNT)
    if np.any(i_out | j_out):
        face, i, j = hilbert.wrap(face, i, j)
    both = i_out & j_out
    leaf = hilbert.encode(face, np.where(both, 0, i), np.where(both, 0, j))
    return np.where(both, 0, (leaf & -lsb) | lsb)


def squares(cells: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Face, lowest leaf (i, j) and side in leaves of each cell."""
    face, i, j = hilbert.decode(cells)
    size = np.int64(1) << (_trailing_zeros(cells) >> 1)
    return face, i & -size, j & -size, size


def _lsb(cells: Ints) -> Ints:
    return cells & -cells


def _trailing_zeros(cells: Ints) -> Ints:
    return (np.frexp((_lsb(cells)).astype(np.float64))[1] - 1).astype(np.int64)


def _level(cells: Ints) -> Ints:
    return MAX_LEVEL - (_trailing_zeros(cells) >> 1)


def _integers(ids: ArrayLike) -> Ints:
    bits = np.asarray(ids)
    if bits.size == 0:
        return bits.astype(np.int64)
    if bits.dtype.kind not in "iu":
        raise BadInputError(
            f"Cell ids must be 64-bit integers, not {bits.dtype}.", hint="Read tokens with from_token."
        )
    return bits.astype(np.int64, copy=False)


def _checked(ids: ArrayLike) -> Ints:
    cells = _integers(ids)
    good = is_valid(cells)
    if not np.all(good):
        where = int(np.argmin(np.ravel(good)))
        raise BadInputError(f"{cells.ravel()[where]} at position {where} is not the id of an S2 cell.")
    return cells


def _checked_level(level: int) -> None:
    if isinstance(level, bool) or not isinstance(level, int | np.integer) or not 0 <= level <= MAX_LEVEL:
        raise UsageError(f"Level {level!r} is not an integer 0..{MAX_LEVEL}.")


def _as(values: Ints, shape: tuple[int, ...] | None = None) -> Ints:
    """Reshaped; a NumPy scalar where the input was a scalar."""
    out: Ints = (values if shape is None else values.reshape(shape))[()]
    return out
