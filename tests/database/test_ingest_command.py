"""`geofix ingest` as a command: exit codes, and photos of phones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import structlog
from photo_files import jpeg
from PIL import Image
from typer.testing import CliRunner

from geofix.cli import ingest as ingest_cli
from geofix.database.engine import connect
from geofix.imagery.photo import decode_photo
from geofix.log import configure
from servers import Database


@pytest.fixture(autouse=True)
def _logs_to_stderr() -> Iterator[None]:
    """As the command line's entry point does, which the runner passes by."""
    configure("INFO")
    yield
    structlog.reset_defaults()


def ingest(*arguments: str, code: int) -> tuple[Any, str]:
    done = CliRunner().invoke(ingest_cli.app, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout), done.stderr


def test_nothing_but_bad_photos_is_bad_input(db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    jpeg(folder / "no_gps.jpg")
    jpeg(folder / "null.jpg", 0.0, 0.0)
    jpeg(folder / "null_too.jpg", 0.0, 0.0)
    result, said = ingest("photos", str(folder), "--dataset", "d", "--workers", "1", code=3)
    assert (result["loaded"], result["rejected"]) == (0, 3)
    assert "all 3 were rejected (null_island 2, no_gps 1)" in said and str(folder) in said
    assert "SELECT source_key, reason, detail FROM reject" in said
    jpeg(folder / "good.jpg", 60.1, 24.9)
    for _ in range(2):  # loaded, then unchanged
        result, _ = ingest("photos", str(folder), "--dataset", "d", "--workers", "1", code=0)
        assert result["loaded"] + result["unchanged"] == 1 and result["rejected"] == 3


def test_an_empty_folder_is_no_fault(db: Database, tmp_path: Path) -> None:
    result, _ = ingest("photos", str(tmp_path), "--dataset", "d", "--workers", "1", code=0)
    assert (result["loaded"], result["rejected"]) == (0, 0)


def test_nothing_but_bad_rasters_is_bad_input(db: Database, tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"no raster")
    result, said = ingest("aerial", str(tmp_path), "--source", "s", code=3)
    assert (result["rasters"], result["rejected"]) == (0, 1) and "all 1 were rejected" in said


def test_a_phone_s_heic_is_loaded_with_its_place_and_time(db: Database, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    image = small.resize((64, 48), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0)})
    exif.get_ifd(0x8825).update({16: "T", 17: 359.5, 31: 4.25})
    exif.get_ifd(0x8769).update({0x9003: "2023:07:08 09:10:11", 0x9011: "+10:00"})
    heic = tmp_path / "photos" / "IMG_0001.HEIC"
    heic.parent.mkdir()
    pillow_heif.from_pillow(image).save(heic, exif=exif.tobytes(), quality=90)
    assert heic.read_bytes()[4:8] == b"ftyp"

    result, _ = ingest("photos", str(heic.parent), "--dataset", "phone", "--workers", "1", code=0)
    assert (result["loaded"], result["rejected"], result["time_assumed_utc"]) == (1, 0, 0)
    with connect("reader") as conn:
        row = conn.execute(
            "SELECT source_key, ST_X(geom), ST_Y(geom), captured_at, heading_deg, gps_accuracy_m,"
            " width, height FROM photo"
        ).fetchone()
    assert row[0] == "IMG_0001.HEIC" and row[3] == datetime(2023, 7, 7, 23, 10, 11, tzinfo=UTC)
    assert row[1:3] == pytest.approx((151.21, -33.858333), abs=1e-6)
    assert (row[4], row[5], row[6], row[7]) == (359.5, 4.25, 48, 64)  # turned upright, once
    pixels = decode_photo(heic)
    assert pixels.shape == (64, 48, 3)
    upright = np.asarray(image.transpose(Image.Transpose.ROTATE_270), np.float64)
    assert np.abs(pixels - upright).mean() < 12  # lossy, but the same picture the same way up
