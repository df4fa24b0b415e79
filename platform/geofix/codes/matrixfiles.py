"""The two files of an S2-sorted matrix: `ids.npy` and `codes.npy`, streamed out and memory-mapped in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from geofix.errors import BadInputError, NotFoundError

Chunk = tuple[npt.NDArray[np.int64], npt.NDArray[np.floating]]

IDS = "ids.npy"
CODES = "codes.npy"


def write_files(directory: Path, chunks: Iterable[Chunk]) -> int:
    """Write chunks of (ids (n,), codes (n, D)) as one matrix in float16, replacing what is there.

    Chunks come sorted by signed id (ORDER BY s2_id); memory stays that of one chunk. The directory appears
    whole or not at all.

    Returns:
        The number of rows.

    Raises:
        BadInputError: Ids are not in order, a code is not finite, or the dimension changes.
    """
    directory = directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        with (work / IDS).open("wb") as ids, (work / CODES).open("wb") as codes:
            rows = _stream(chunks, ids, codes)
        work.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        work.rename(directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return rows


def open_files(directory: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """Memory-map both files; nothing is read until it is searched.

    All processes of a host that open the same directory share the same memory. The maps are read-only: such
    as may be written to count as memory in use, and files larger than memory would be refused.

    Raises:
        NotFoundError: A file is missing.
        BadInputError: The files do not belong together.
    """
    try:
        ids = np.load(directory / IDS, mmap_mode="r", allow_pickle=False)
        codes = np.load(directory / CODES, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise NotFoundError(f"{directory} holds no matrix.", hint="Build the code set first.") from error
    except ValueError as error:
        raise BadInputError(f"{directory} is damaged: {error}.", hint="Build the code set again.") from error
    if ids.ndim != 1 or codes.ndim != 2 or len(ids) != len(codes) or ids.dtype != np.int64:
        raise BadInputError(
            f"{directory}: ids {ids.shape} and codes {codes.shape} do not belong together.",
            hint="Build the code set again.",
        )
    return ids, codes


def _stream(chunks: Iterable[Chunk], ids: BinaryIO, codes: BinaryIO) -> int:
    rows, dimension, last = 0, -1, np.iinfo(np.int64).min
    _header(ids, np.dtype(np.int64), (0,))
    for keys, values in chunks:
        with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
            keys, half = np.asarray(keys, dtype=np.int64), np.asarray(values, dtype=np.float16)
        _check_chunk(keys, half, rows, dimension, last)
        if dimension < 0:
            dimension = half.shape[1]
            _header(codes, np.dtype(np.float16), (0, dimension))
        ids.write(keys.tobytes())
        codes.write(half.tobytes())
        rows += len(keys)
        last = int(keys[-1]) if len(keys) else last
    _header(ids, np.dtype(np.int64), (rows,))
    _header(codes, np.dtype(np.float16), (rows, max(dimension, 0)))
    return rows


def _check_chunk(
    keys: npt.NDArray[np.int64], codes: npt.NDArray[np.float16], rows: int, dimension: int, last: int
) -> None:
    if codes.ndim != 2 or keys.shape != codes.shape[:1] or dimension not in (-1, codes.shape[1]):
        raise BadInputError(
            f"chunk after row {rows}: ids {keys.shape} and codes {codes.shape} do not fit.",
            hint="Every chunk is (n,) ids and (n, D) codes of one D.",
        )
    if not np.isfinite(codes).all():
        raise BadInputError(f"a code after row {rows} is not finite.", hint="Find the model that made it.")
    if len(keys) and (keys[0] < last or (keys[1:] < keys[:-1]).any()):
        raise BadInputError(f"ids after row {rows} are not in order.", hint="Read them ORDER BY s2_id.")


def _header(stream: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the header at the start: NumPy pads it so that the number of rows can grow in place."""
    stream.flush()
    stream.seek(0)
    described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(stream, described)
    stream.flush()
    os.fsync(stream.fileno())
