"""Squares of imagery are sampled as GDAL's warper does along a raster's grid, and alike at every bearing."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

from geofix.imagery.patches import Patch, decimation
from geofix.imagery.sampling import sample


def patch(size: int = 160, seed: int = 0, hole: bool = False) -> Patch:
    rgb = np.random.default_rng(seed).uniform(0, 255, (3, size, size)).astype(np.float32)
    valid = np.ones((size, size), bool)
    if hole:
        valid[60:90, 70:100] = False
        rgb[:, ~valid] = 0
    return Patch(rgb, valid, Affine.identity())


def view(step: float, size_px: int, *, turn: float = 0.0, shift: float = 0.3, side: int = 160) -> Affine:
    middle = Affine.translation(side / 2 + shift, side / 2 - shift)
    return (
        middle @ Affine.rotation(turn) @ Affine.scale(step) @ Affine.translation(-size_px / 2, -size_px / 2)
    )


def gdal(made: Patch, to_patch: Affine, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    plane, flip = CRS.from_epsg(3857), Affine.translation(1000, 1000) @ Affine.scale(1, -1)
    bands = np.concatenate([made.rgb, made.valid[None].astype(np.float32)])
    out = np.zeros((4, size_px, size_px), np.float32)
    reproject(
        bands, out, src_transform=flip, src_crs=plane, dst_transform=flip @ to_patch, dst_crs=plane,
        resampling=Resampling.bilinear, init_dest_nodata=True,
    )  # fmt: skip
    valid = out[3] >= 0.5
    return np.where(valid, out[:3] / np.where(valid, out[3], 1), 0), valid


@pytest.mark.parametrize(
    ("step", "tolerance"), [(0.4, 0.01), (0.8, 0.01), (0.999, 0.01), (1.3, 10.0), (1.6, 10.0), (2.0, 0.1)]
)
def test_as_gdal_along_the_grid(step: float, tolerance: float) -> None:
    """On white noise (deviation 74), which shows where kernels differ: between whole steps."""
    for hole in (False, True):
        made, to_patch = patch(hole=hole), view(step, 64)
        (rgb, valid), (expected, seen) = sample(made, to_patch, 64), gdal(made, to_patch, 64)
        assert (valid != seen).mean() < 0.002
        both = valid & seen
        assert np.sqrt(np.mean((rgb[:, both] - expected[:, both]) ** 2)) < tolerance


def test_a_plain_copy_is_exact_and_stops_at_the_edge() -> None:
    made = patch()
    rgb, valid = sample(made, Affine.translation(150, -10), 40)
    assert valid.sum() == 300 and valid[10:, :10].all()
    np.testing.assert_array_equal(rgb[:, 10:, :10], made.rgb[:, :30, 150:])
    assert not rgb[:, ~valid].any()
    one = Patch(made.rgb[:, :1, :1], np.ones((1, 1), bool), Affine.identity())
    rgb, valid = sample(one, Affine.scale(0.25), 4)
    assert valid.all()
    np.testing.assert_allclose(rgb, np.broadcast_to(one.rgb, (3, 4, 4)), rtol=1e-6)


@pytest.mark.parametrize("step", [0.7, 1.0, 1.5, 2.0, 3.3])
def test_sharpness_does_not_tell_the_bearing(step: float) -> None:
    deviation = [
        sample(patch(300), view(step, 48, turn=turn, shift=0.21, side=300), 48)[0].std()
        for turn in (0, 30, 45)
    ]
    assert np.ptp(deviation) < 0.12 * np.mean(deviation)


def test_invalid_pixels_lend_no_colour() -> None:
    made = patch(hole=True)
    flat = Patch(
        np.where(made.valid, np.float32(90), np.float32(0)) * np.ones((3, 1, 1), np.float32),
        made.valid,
        made.transform,
    )
    for step in (0.5, 1.0, 1.7, 2.6):
        rgb, valid = sample(flat, view(step, 50, turn=20), 50)
        assert not valid.all()
        np.testing.assert_allclose(rgb[:, valid], 90, rtol=1e-5)


def test_straight_lines_stay_straight() -> None:
    column = np.tile(np.arange(160, dtype=np.float32) + 0.5, (160, 1))
    made = Patch(np.stack([column, column.T, column]), np.ones((160, 160), bool), Affine.identity())
    for step, turn in ((0.6, 10.0), (1.0, 45.0), (1.7, 200.0)):
        to_patch = view(step, 40, turn=turn)
        rgb, valid = sample(made, to_patch, 40)
        x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(40) + 0.5)
        assert valid.all()
        np.testing.assert_allclose(rgb[0], to_patch.a * x + to_patch.b * y + to_patch.c, atol=1e-3)
        np.testing.assert_allclose(rgb[1], to_patch.d * x + to_patch.e * y + to_patch.f, atol=1e-3)


def test_overviews_leave_about_one_to_two_pixels() -> None:
    assert [decimation(r) for r in (0.1, 0.96, 1.0, 1.89, 1.95, 2.0, 3.7, 3.9, 16.0)] == [
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        4,
        16,
    ]
