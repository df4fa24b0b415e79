"""Between leaf coordinates (face, i, j) and S2 ids: the Hilbert curve, five levels per table look-up.

A cell id is 3 bits of face, 60 bits of position along the face's curve, and a trailing one. On every level
the curve visits the four quadrants in one of four orders; the order is an orientation of two bits: 1 swaps
the axes, 2 inverts both. See https://s2geometry.io/devguide/s2cell_hierarchy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MAX_LEVEL = 30
LEAF_COUNT = 1 << MAX_LEVEL
"""Leaf cells along one side of a face."""

_BITS = 5  # 30 levels in 6 look-ups; 4,096 entries of two bytes stay in the first-level cache
_MASK = (1 << _BITS) - 1
_SWAP, _INVERT = 1, 2


def _tables() -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Both directions of `_BITS` levels at once.

    Returns:
        (i << 7 | j << 2 | orientation) -> (position << 2 | next orientation), and
        (position << 2 | orientation) -> (i << 7 | j << 2 | next orientation).
    """
    index = np.arange(1 << (2 * _BITS + 2))
    orientation, i, j = index & 3, index >> (_BITS + 2), (index >> 2) & _MASK
    position = np.zeros_like(index)
    for bit in reversed(range(_BITS)):
        i_bit, j_bit = (i >> bit) & 1, (j >> bit) & 1
        swap, invert = orientation & _SWAP, orientation >> 1
        first = np.where(swap == 1, j_bit, i_bit) ^ invert  # the pair as the unturned curve sees it
        second = np.where(swap == 1, i_bit, j_bit) ^ invert
        quadrant = 2 * first + (first ^ second)  # visited in the order 00, 01, 11, 10
        position = position << 2 | quadrant
        orientation = orientation ^ np.array([_SWAP, 0, 0, _SWAP | _INVERT])[quadrant]
    encode = (position << 2 | orientation).astype(np.int16)
    decode = np.empty_like(encode)
    decode[position << 2 | index & 3] = (i << (_BITS + 2) | j << 2 | orientation).astype(np.int16)
    return encode, decode


_ENCODE, _DECODE = _tables()


def encode(face: Ints, i: Ints, j: Ints) -> Ints:
    """Ids of the leaf cells at (i, j), each 0..2**30-1, of a face 0..5."""
    orientation = face & _SWAP
    position = face.copy()
    for shift in range(MAX_LEVEL - _BITS, -1, -_BITS):
        found = _ENCODE[((i >> shift) & _MASK) << (_BITS + 2) | ((j >> shift) & _MASK) << 2 | orientation]
        position = position << (2 * _BITS) | found >> 2
        orientation = found & 3
    return position << 1 | 1


def decode(ids: Ints) -> tuple[Ints, Ints, Ints]:
    """Face and the (i, j) of one leaf cell inside each cell (for a leaf: its own)."""
    face = (ids >> 61) & 7
    orientation = face & _SWAP
    i = np.zeros_like(ids)
    j = np.zeros_like(ids)
    for shift in range(2 * (MAX_LEVEL - _BITS) + 1, 0, -2 * _BITS):
        found = _DECODE[((ids >> shift) & ((1 << 2 * _BITS) - 1)) << 2 | orientation]
        i = i << _BITS | found >> (_BITS + 2)
        j = j << _BITS | (found >> 2) & _MASK
        orientation = found & 3
    return face, i, j


def wrap(face: Ints, i: Ints, j: Ints) -> tuple[Ints, Ints, Ints]:
    """Carry coordinates that left their face over one edge onto the face beyond it.

    Across an edge the leaf grids of two faces match one to one, so this is exact integer arithmetic. Faces
    0, 2, 4 are turned into each other by a rotation of the cube, and so are 1, 3, 5: two cases of four edges.

    Args:
        face: 0..5.
        i: Leaf coordinate, where below 0 or above 2**30-1 the cell lies beyond that edge.
        j: As i; at most one of the two may lie outside.
    """
    last = LEAF_COUNT - 1
    even = face % 2 == 0
    out = [i > last, j > last, i < 0, j < 0]
    zero, full = np.zeros_like(i), np.full_like(i, last)
    step = np.select(out, [np.where(even, a, b) for a, b in ((1, 2), (2, 1), (4, 5), (5, 4))], 0)
    new_i = np.select(
        out,
        [
            np.where(even, zero, last - j),
            np.where(even, zero, i),
            np.where(even, last - j, full),
            np.where(even, i, full),
        ],
        i,
    )
    new_j = np.select(
        out,
        [
            np.where(even, j, zero),
            np.where(even, last - i, zero),
            np.where(even, full, j),
            np.where(even, full, last - i),
        ],
        j,
    )
    return (face + step) % 6, new_i, new_j
