"""Exact search: equal to brute force everywhere and in regions, stable on ties, on disk and in torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from geofix.codes import halves
from geofix.codes import matrix as module
from geofix.codes.halves import Direct, Widened, products
from geofix.codes.matrix import CellMatrix
from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.spatial import s2


def make(n: int = 3000, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells over the whole globe, so that signed ids occur on both sides of zero."""
    rng = np.random.default_rng(seed)
    ids = np.unique(s2.cell_at(rng.uniform(-180, 180, n), rng.uniform(-89, 89, n), 14))
    rng.shuffle(ids)
    codes = rng.normal(size=(len(ids), d))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return ids, codes.astype(np.float16), rng.normal(size=(7, d)).astype(np.float32)


def brute(
    ids: np.ndarray, codes: np.ndarray, queries: np.ndarray, k: int, keep: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    scores = (queries.astype(np.float64) @ codes.astype(np.float64).T).astype(np.float32)
    if keep is not None:
        ids, scores = ids[keep], scores[:, keep]
    order = np.array([np.lexsort((ids, -row))[:k] for row in scores], dtype=int).reshape(len(queries), -1)
    return ids[order], np.take_along_axis(scores, order, 1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and query chunks even for a small matrix."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", 24 * 4 * 37)
    monkeypatch.setattr(module, "_QUERIES", 3)


@pytest.mark.parametrize("k", [1, 10, 100, 2999, 5000])
def test_equals_brute_force(k: int, small_blocks: None) -> None:
    ids, codes, queries = make()
    assert (ids < 0).any() and (ids > 0).any()
    found, scores = CellMatrix.from_rows(ids, codes).search(queries, k)
    expected, expected_scores = brute(ids, codes, queries, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    assert scores.dtype == np.float32 and found.shape == (7, min(k, len(ids)))


def test_region_is_slices(small_blocks: None) -> None:
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    low, high = s2.range_of(s2.parent(ids[[5, 900, 40, 5]], np.array([2, 3, 4, 5])))
    ranges = np.stack([low, high], axis=1)  # the last lies within the first
    keep = ((ids[:, None] >= low) & (ids[:, None] <= high)).any(axis=1)
    assert 0 < keep.sum() < len(ids)
    assert cells.cells_in_scope(ranges) == keep.sum() and cells.cells_in_scope() == len(ids)
    for k in (5, 10_000):
        found, scores = cells.search(queries, k, ranges)
        expected, expected_scores = brute(ids, codes, queries, k, keep)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(scores, expected_scores)
        assert found.shape[1] == min(k, keep.sum())


def test_nothing_in_scope() -> None:
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    for ranges in (np.array([[8, 9]]), np.zeros((0, 2), dtype=np.int64), np.array([[9, 8]])):
        found, scores = cells.search(queries, 3, ranges)
        assert found.shape == scores.shape == (7, 0)
        assert cells.cells_in_scope(ranges) == 0
    assert cells.search(queries[:0], 3)[0].shape == (0, 3)
    empty = CellMatrix.from_rows(np.zeros(0, np.int64), np.zeros((0, 24)))
    assert empty.search(queries, 3)[0].shape == (7, 0)


def test_ties_come_in_id_order(small_blocks: None) -> None:
    """Four children that copy one parent tie exactly, wherever the blocks are cut."""
    ids, codes, queries = make()
    order = np.argsort(ids)
    copied = np.repeat(codes[: (len(ids) + 3) // 4], 4, axis=0)[: len(ids)]
    cells = CellMatrix.from_rows(ids[order], copied)
    found, scores = cells.search(queries, 12)
    for row, score in zip(found, scores, strict=True):
        assert len(np.unique(score)) == 3
        for group in range(0, 12, 4):
            assert (np.diff(row[group : group + 4]) > 0).all()
    same = CellMatrix.from_rows(ids, np.ones((len(ids), 24)))
    np.testing.assert_array_equal(same.search(queries, 10)[0], np.tile(np.sort(ids)[:10], (7, 1)))
    zero = CellMatrix.from_rows(ids, np.where(np.arange(len(ids))[:, None] % 2, 0.0, -0.0) * np.ones((1, 24)))
    np.testing.assert_array_equal(zero.search(queries, 10)[0], np.tile(np.sort(ids)[:10], (7, 1)))


def test_files_round_trip(tmp_path: Path) -> None:
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    CellMatrix.write(tmp_path / "m", [(cells.ids, cells.codes)])
    mapped = CellMatrix.open(tmp_path / "m")
    assert isinstance(mapped.codes, np.memmap) and len(mapped) == len(ids) and mapped.dimension == 24
    np.testing.assert_array_equal(mapped.ids, np.sort(ids))
    for a, b in zip(mapped.search(queries, 9), cells.search(queries, 9), strict=True):
        np.testing.assert_array_equal(a, b)
    chunks = ((cells.ids[i : i + 100], cells.codes[i : i + 100]) for i in range(0, len(ids), 100))
    assert CellMatrix.write(tmp_path / "m", chunks) == len(ids)  # replaces what is there
    np.testing.assert_array_equal(CellMatrix.open(tmp_path / "m").codes, cells.codes)
    assert CellMatrix.write(tmp_path / "none", iter([])) == 0
    assert len(CellMatrix.open(tmp_path / "none")) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "none"]


def test_a_matrix_larger_than_memory_can_be_opened(tmp_path: Path) -> None:
    """A map that may be written to would count as memory in use, and be refused."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    rows = 2 * memory // 2048 + 2**26
    for name, dtype, shape in (("ids", np.int64, (rows,)), ("codes", np.float16, (rows, 1024))):
        with (tmp_path / f"{name}.npy").open("wb") as file:
            described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, described)
            try:
                file.truncate(file.tell() + np.dtype(dtype).itemsize * int(np.prod(shape)))
            except OSError as error:
                pytest.skip(f"no file of {rows * 2048} bytes can be made here: {error}")
    cells = CellMatrix.open(tmp_path)
    assert len(cells) == rows and not cells.codes[-3:].any()


def test_failed_write_leaves_the_old_matrix(tmp_path: Path) -> None:
    ids, codes, _ = make()
    cells = CellMatrix.from_rows(ids, codes)
    CellMatrix.write(tmp_path / "m", [(cells.ids, cells.codes)])
    for bad in (
        [(cells.ids[::-1], cells.codes)],
        [(cells.ids[:9], cells.codes[:9]), (cells.ids[:9], cells.codes[:9])],
        [(cells.ids[:9], cells.codes[:9]), (cells.ids[9:], cells.codes[9:, :4])],
        [(cells.ids, np.full((len(ids), 24), np.nan))],
    ):
        with pytest.raises(BadInputError):
            CellMatrix.write(tmp_path / "m", iter(bad))
        assert len(CellMatrix.open(tmp_path / "m")) == len(ids)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    with pytest.raises(NotFoundError):
        CellMatrix.open(tmp_path / "x")


def test_rows_containing() -> None:
    ids, codes, _ = make()
    cells = CellMatrix.from_rows(ids, codes)
    rng = np.random.default_rng(1)
    lon, lat = s2.center(cells.ids)
    leaves = s2.cell_at(np.clip(lon + rng.normal(0, 0.002, len(lon)), -180, 180), lat, 30)
    parents = s2.parent(leaves, 14)
    expected = np.array([np.flatnonzero(cells.ids == p)[0] if p in cells.ids else -1 for p in parents])
    assert (expected >= 0).any() and (expected < 0).any()
    np.testing.assert_array_equal(cells.rows_containing(leaves), expected)
    np.testing.assert_array_equal(cells.rows_containing(cells.ids), np.arange(len(cells)))


def test_score_blocks_cover_the_scope(small_blocks: None) -> None:
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    blocks = list(cells.score_blocks(queries))
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate([i for i, _ in blocks]), cells.ids)
    np.testing.assert_allclose(
        np.concatenate([s for _, s in blocks], axis=1), queries @ cells.codes.astype(np.float32).T, atol=1e-5
    )


def test_torch_codes_give_the_same(small_blocks: None) -> None:
    pytest.importorskip("torch").set_num_threads(1)
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    low, high = s2.range_of(s2.parent(ids[:3], 2))
    for ranges in (None, np.stack([low, high], axis=1)):
        for a, b in zip(
            cells.to("cpu").search(queries, 20, ranges), cells.search(queries, 20, ranges), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    same = CellMatrix.from_rows(ids, np.ones((len(ids), 24))).to("cpu")
    np.testing.assert_array_equal(same.search(queries, 10)[0], np.tile(np.sort(ids)[:10], (7, 1)))


def test_widened_halves_are_exact() -> None:
    """Every finite float16, subnormals and both zeros among them, against NumPy's own conversion."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    codes = every[np.isfinite(every)].reshape(-1, 16)
    queries = np.eye(16, dtype=np.float32)
    found = Widened(queries, codes, 100).scores(0, len(codes))
    np.testing.assert_array_equal(found, codes.T.astype(np.float32))
    for scale in (2.0**14, 2.0**15, 2.0**60, 2.0**-60):  # from 2^15 on by conversion
        np.testing.assert_array_equal(
            Widened(queries * scale, codes, 100).scores(7, 30), scale * found[:, 7:30]
        )


@pytest.fixture(params=["numkong", "NumPy alone"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of few queries: the library, and what a base install without it does."""
    halves.summing_kernels.cache_clear()
    if request.param == "numkong":
        pytest.importorskip("numkong")
    else:
        monkeypatch.setitem(sys.modules, "numkong", None)  # the import fails
    yield request.param
    halves.summing_kernels.cache_clear()


@pytest.mark.parametrize("shape", ["spread", "close", "negative", "same"])
def test_few_queries_equal_brute_force(shape: str, kernels: str, tmp_path: Path) -> None:
    """Of codes spread and close, from a read-only map, everywhere and in slices of one row."""
    ids, codes, queries = make(n=12_000)
    if shape == "close":  # all scores within a few units in the last place of float16
        codes = (codes.astype(np.float32) * 1e-3 + codes[0].astype(np.float32)).astype(np.float16)
        queries[0] = codes[0]
    elif shape == "negative":
        codes = -np.abs(codes)
        queries = np.abs(queries)
    elif shape == "same":
        codes = np.broadcast_to(codes[:1], codes.shape).copy()
    queries = queries.astype(np.float16).astype(np.float32)
    held = CellMatrix.from_rows(ids, codes)
    CellMatrix.write(tmp_path / "m", [(held.ids, held.codes)])
    cells = CellMatrix.open(tmp_path / "m")
    assert not cells.codes.flags.writeable
    assert isinstance(products(queries, cells.codes, 100), Direct if kernels == "numkong" else Widened)
    low, high = s2.range_of(s2.parent(ids[:4], np.array([1, 1, 2, 3])))
    alone = np.sort(ids)[::50]
    for ranges in (None, np.stack([low, high], axis=1), np.stack([alone, alone], axis=1)):
        inside = [] if ranges is None else [(ids >= a) & (ids <= b) for a, b in ranges]
        keep = np.any(inside, axis=0) if inside else None
        for k in (1, 10, 200):
            for few in (queries[:1], queries[:2], queries):
                found, scores = cells.search(few, k, ranges)
                expected, expected_scores = brute(ids, codes, few, k, keep)
                np.testing.assert_array_equal(found, expected)
                np.testing.assert_array_equal(scores, expected_scores)


def test_products_in_registers_are_those_of_float32() -> None:
    """Every length of a row, and every finite float16 against NumPy's own conversion."""
    kernels = pytest.importorskip("numkong")
    rng = np.random.default_rng(0)
    for length in (*range(1, 70), 255, 256, 258, 514):
        codes = rng.standard_normal((41, length)).astype(np.float16)
        queries = rng.standard_normal((3, length)).astype(np.float16)
        expected = queries.astype(np.float64) @ codes[3:41].astype(np.float64).T
        bound = np.linalg.norm(queries.astype(float), axis=1)[:, None] * np.linalg.norm(
            codes[3:].astype(float), axis=1
        )
        found = Direct(kernels, queries, codes).scores(3, 41)
        assert (np.abs(found - expected) <= length * 2.0**-24 * bound).all()
        np.testing.assert_array_equal(Direct(kernels, queries, codes).scores(3, 41, slice(1, 2)), found[1:2])
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    codes = every[np.isfinite(every)].reshape(-1, 16)
    for first in range(0, 16, 4):
        queries = np.eye(16, dtype=np.float16)[first : first + 4]
        found = Direct(kernels, queries, codes).scores(0, len(codes))
        np.testing.assert_array_equal(found, codes.T[first : first + 4].astype(np.float32))


def test_what_the_kernels_are_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many queries, such as float16 does not hold, codes of float32, and kernels that sum too coarsely."""
    pytest.importorskip("numkong")
    _, codes, queries = make(n=100)
    exact = queries.astype(np.float16).astype(np.float32)
    assert isinstance(products(exact, codes, 10), Direct)
    for others, rows in (
        (np.repeat(exact, 2, axis=0), codes),
        (queries, codes),
        (exact, codes.astype(np.float32)),
    ):
        assert isinstance(products(others, rows, 10), Widened)

    class Coarse:
        @staticmethod
        def dot(rows: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
            out[:] = rows @ query  # in float16

    monkeypatch.setitem(sys.modules, "numkong", Coarse)
    halves.summing_kernels.cache_clear()
    assert halves.summing_kernels() is None
    halves.summing_kernels.cache_clear()


def test_queries_may_lie_in_any_order() -> None:
    rng = np.random.default_rng(3)
    ids = np.sort(rng.choice(1 << 40, 500, replace=False)).astype(np.int64)
    matrix = CellMatrix.from_rows(ids, rng.normal(size=(500, 32)).astype(np.float16))
    queries = rng.normal(size=(5, 32)).astype(np.float16).astype(np.float32)
    wanted = matrix.search(queries, 7)
    found = matrix.search(np.asfortranarray(queries), 7)
    assert (found[0] == wanted[0]).all() and (found[1] == wanted[1]).all()


def test_faults() -> None:
    ids, codes, queries = make()
    cells = CellMatrix.from_rows(ids, codes)
    with pytest.raises(BadInputError, match="occurs twice"):
        CellMatrix.from_rows(np.append(ids, ids[0]), np.vstack([codes, codes[:1]]))
    assert len(CellMatrix.from_rows(np.append(ids, ids[0]), np.vstack([codes, codes[:1]]), unique=False))
    with pytest.raises(BadInputError, match="not finite"):
        CellMatrix.from_rows(ids, codes.astype(np.float64) * 1e6)
    with pytest.raises(BadInputError, match="dimension 24"):
        cells.search(queries[:, :20], 3)
    with pytest.raises(BadInputError, match="not finite"):
        cells.search(queries * np.nan, 3)
    with pytest.raises(UsageError):
        cells.search(queries, 0)


def test_search_and_localizers_need_no_torch() -> None:
    modules = [
        "codes.matrix",
        "codes.complete",
        "models.manifest",
        "localizers.density",
        "localizers.cellmean",
    ]
    modules += ["localizers.cellmean", "localizers.popular", "localize.credible", "imagery.transforms"]
    code = "import sys\n" + "\n".join(f"import geofix.{m}" for m in modules)
    code += "\nsys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
