"""Completion to equal norm keeps the order, and undoes exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geofix.codes.complete import complete_codes, complete_query, completion_norm, scores_from, split_codes
from geofix.errors import BadInputError


def make(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, d)) * rng.lognormal(sigma=0.7, size=(n, 1))
    return z, rng.normal(scale=0.3, size=n), rng.normal(size=(5, d))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 10_000))
def test_order_norm_and_scores(n: int, d: int, seed: int) -> None:
    z, bias, q = make(n, d, seed)
    codes = complete_codes(z, bias)
    assert codes.shape == (n, d + 2) and codes.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, atol=1e-6)
    norm = completion_norm(z, bias)
    raw = q @ z.T + bias
    back = scores_from(complete_query(q) @ codes.T, norm)
    np.testing.assert_allclose(back, raw, atol=2e-5 * norm * np.abs(q).sum())
    for row, exact in zip(back, raw, strict=True):
        order = np.argsort(-row)
        assert np.diff(exact[order]).max(initial=-1) <= 1e-4 * norm * np.abs(q).sum()  # only near-ties swap


def test_nearest_by_distance_is_best_by_score() -> None:
    z, bias, q = make(500, 16, 1)
    codes, queries = complete_codes(z, bias).astype(np.float64), complete_query(q).astype(np.float64)
    distance = np.linalg.norm(queries[:, None] - codes[None], axis=2)
    best = np.argmax(q @ z.T + bias, axis=1)
    np.testing.assert_array_equal(np.argmin(distance, axis=1), best)
    assert (np.argmax(q @ (z / np.linalg.norm(z, axis=1, keepdims=True)).T, axis=1) != best).any()


def test_inverse_and_parts() -> None:
    z, bias, _ = make(40, 8, 2)
    norm = max(completion_norm(z[:20], bias[:20]), completion_norm(z[20:], bias[20:]))
    parts = np.concatenate([complete_codes(z[i : i + 20], bias[i : i + 20], norm=norm) for i in (0, 20)])
    np.testing.assert_array_equal(parts, complete_codes(z, bias))
    codes, biases = split_codes(parts, norm)
    np.testing.assert_allclose(codes, z, atol=1e-5)
    np.testing.assert_allclose(biases, bias, atol=1e-5)


def test_half_precision_keeps_the_norm_check_true() -> None:
    z, bias, _ = make(2000, 64, 3)
    norms = np.linalg.norm(complete_codes(z, bias).astype(np.float16).astype(np.float64), axis=1)
    assert np.abs(norms - 1).max() <= 5e-4


def test_bias_is_optional_and_edges_hold() -> None:
    z, _, q = make(10, 4, 4)
    assert (complete_codes(z)[:, 4] == 0).all()
    assert complete_query(q[0]).tolist() == [*q[0].astype(np.float32).tolist(), 1.0, 0.0]
    np.testing.assert_allclose(complete_codes(np.zeros((2, 3))), [[0, 0, 0, 0, 1]] * 2)
    assert complete_codes(np.zeros((0, 3))).shape == (0, 5)


def test_faults() -> None:
    z, bias, _ = make(5, 3, 5)
    with pytest.raises(BadInputError, match="below the largest"):
        complete_codes(z, bias, norm=0.5 * completion_norm(z, bias))
    with pytest.raises(BadInputError, match="belong together"):
        complete_codes(z, bias[:3])
    z[2, 1] = np.nan
    with pytest.raises(BadInputError, match="not finite"):
        complete_codes(z, bias)
