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
        self._least = np.full(queries, -np.inf, dtype=np.float32)

    def add(self, keys: Keys, first_query: int) -> None:
        """Take in the keys (p, b) of queries first_query ... first_query + p - 1."""
        held = self.best[first_query : first_query + len(keys)]
        better = np.flatnonzero(keys.max(axis=1) > held.min(axis=1))
        if not len(better):
            return
        both = np.concatenate([held[better], keys[better]], axis=1)
        held[better] = np.partition(both, both.shape[1] - self.k, axis=1)[:, -self.k :]

    def add_scores(self, scores: npt.NDArray[np.float32], first_row: int, first_query: int) -> None:
        """Take in scores (p, b) of the rows first_row ... first_row + b - 1, all of them after any before.

        Most blocks hold nothing better than the k-th best so far, and cost a maximum per query.
        """
        least = self._least[first_query : first_query + len(scores)]
        held = self.best[first_query : first_query + len(scores)]
        for query in np.flatnonzero(scores.max(axis=1) > least).tolist():
            columns = np.flatnonzero(scores[query] > least[query])
            both = np.concatenate([held[query], pack_keys(scores[query, columns], first_row + columns)])
            held[query] = np.partition(both, len(both) - self.k)[-self.k :]
            worst = held[query].min()
            least[query] = -np.inf if worst == EMPTY else _score(worst)

    def rows(self) -> npt.NDArray[np.int64]:
        """Rows (q, k), best first."""
        ordered: Keys = np.sort(self.best, axis=1)[:, ::-1]
        return 0xFFFFFFFF - (ordered & 0xFFFFFFFF)


def pack_keys(scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> Keys:
    """Keys of scores (..., b) of rows (b,)."""
    bits = (scores + np.float32(0.0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    keys: Keys = (_in_order(bits).astype(np.int64) << 32) | (_LOW - rows)
    return keys


def _in_order(bits: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Bits of float32 as integers that order as the numbers do; its own inverse."""
    turned: npt.NDArray[np.int32] = bits ^ (np.right_shift(bits, 31) & np.int32(0x7FFFFFFF))
    return turned


def _score(key: np.int64) -> np.float32:
    """The score that a key was made of."""
    return np.float32(_in_order(np.array([key >> 32], dtype=np.int32)).view(np.float32)[0])


def pack_keys_torch(scores: Any, first_row: int, k: int) -> Keys:
    """The same on a torch device: keys of the best min(k, b) columns, brought to the CPU."""
    import torch

    bits = (scores + 0.0).contiguous().view(torch.int32)
    ordered = torch.bitwise_xor(bits, torch.bitwise_right_shift(bits, 31) & 0x7FFFFFFF).to(torch.int64)
    columns = torch.arange(first_row, first_row + scores.shape[1], dtype=torch.int64, device=scores.device)
    keys = (ordered << 32) | (0xFFFFFFFF - columns)
    best: Keys = torch.topk(keys, min(k, keys.shape[1]), dim=1, sorted=False).values.cpu().numpy()
    return best
