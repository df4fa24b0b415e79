"""The k best rows of a stream of score blocks, with a total order.

A score and its row are packed into one int64: the upper half orders as the float32 score does, the lower
half orders rows the other way round. Keys are then distinct, a partial sort of them is deterministic, and of
equal scores the lower row comes first. Rows are limited to 2^32 - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
EMPTY = np.iinfo(np.int64).min
_LOW = np.int64(0xFFFFFFFF)


class TopK:
    """The best k keys of each of q queries so far."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.best: Keys = np.full((queries, k), EMPTY, dtype=np.int64)

    def add(self, keys: Keys, first_query: int) -> None:
        """Take in the keys (p, b) of queries first_query ... first_query + p - 1."""
        held = self.best[first_query : first_query + len(keys)]
        better = np.flatnonzero(keys.max(axis=1) > held.min(axis=1))
        if not len(better):
            return
        both = np.concatenate([held[better], keys[better]], axis=1)
        held[better] = np.partition(both, both.shape[1] - self.k, axis=1)[:, -self.k :]

    def rows(self) -> npt.NDArray[np.int64]:
        """Rows (q, k), best first."""
        ordered: Keys = np.sort(self.best, axis=1)[:, ::-1]
        return 0xFFFFFFFF - (ordered & 0xFFFFFFFF)


def pack_keys(scores: npt.NDArray[np.float32], first_row: int) -> Keys:
    """Keys of scores (p, b) whose columns are the rows first_row ... first_row + b - 1."""
    bits = (scores + np.float32(0.0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    ordered = np.bitwise_xor(bits, np.right_shift(bits, 31) & np.int32(0x7FFFFFFF)).astype(np.int64)
    low = _LOW - np.arange(first_row, first_row + scores.shape[1], dtype=np.int64)
    keys: Keys = (ordered << 32) | low
    return keys


def pack_keys_torch(scores: Any, first_row: int, k: int) -> Keys:
    """The same on a torch device: keys of the best min(k, b) columns, brought to the CPU."""
    import torch

    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.bitwise_xor(bits, torch.bitwise_right_shift(bits, 31) & 0x7FFFFFFF).to(torch.int64)
    columns = torch.arange(first_row, first_row + scores.shape[1], dtype=torch.int64, device=scores.device)
    keys = (ordered << 32) | (0xFFFFFFFF - columns)
    best: Keys = torch.topk(keys, min(k, keys.shape[1]), dim=1, sorted=False).values.cpu().numpy()
    return best
