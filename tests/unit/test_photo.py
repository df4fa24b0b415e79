from __future__ import annotations

import io
import os
import pickle
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from geofix.imagery.exif import angle, capture_time, heading, number, parse_gps
from geofix.imagery.photo import BadPhoto, decode_photo, read_photo_info, sniff_format


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Left half red, right half blue, a white corner at the top left."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (200, 0, 0)
    pixels[:, width // 2 :] = (0, 0, 200)
    pixels[: height // 4, : width // 4] = 255
    return Image.fromarray(pixels)


def exif_of(gps: dict[int, object] | None = None, orientation: int = 1, **times: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F], exif[0x0110] = "Maker\0", "Model 1"
    block = exif.get_ifd(0x8769)
    for name, tag in (("original", 0x9003), ("offset", 0x9011), ("subsec", 0x9291)):
        if name in times:
            block[tag] = times[name]
    if gps is not None:
        exif.get_ifd(0x8825).update(gps)
    return exif


GPS = {
    1: "S",
    2: (33.0, 51.0, 30.0),
    3: "E",
    4: (151.0, 12.0, 36.0),
    5: b"\x01",
    6: 12.5,
    16: "T",
    17: 359.5,
    31: 4.25,
}


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    (image or picture()).save(path, **options)
    return path


def test_reads_everything_a_camera_writes(tmp_path):
    times = {"original": "2021:06:05 14:03:02", "offset": "+10:00", "subsec": "25"}
    path = save(tmp_path / "a.jpg", exif=exif_of(GPS, **times))
    info = read_photo_info(path)
    assert (info.format, info.width, info.height, info.orientation) == ("JPEG", 64, 48, 1)
    assert info.gps.lat == pytest.approx(-(33 + 51 / 60 + 30 / 3600), abs=1e-9)
    assert info.gps.lon == pytest.approx(151 + 12 / 60 + 36 / 3600, abs=1e-9)
    assert (info.gps.altitude_m, info.gps.accuracy_m, info.gps.heading_deg) == (-12.5, 4.25, 359.5)
    assert info.gps.heading_ref == "T" and not info.gps.assumed_refs
    assert info.captured_at == datetime(2021, 6, 5, 4, 3, 2, 250_000, tzinfo=UTC)
    assert not info.time_assumed_utc
    assert (info.make, info.model) == ("Maker", "Model 1")
    assert info.file_bytes == path.stat().st_size and len(info.sha256) == 32


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "avif", "heic", "bmp"])
def test_every_format_decodes_to_upright_rgb(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    save(path, **({} if extension == "bmp" else {"exif": exif_of(GPS).tobytes()}))
    info = read_photo_info(path)
    assert (info.width, info.height) == (64, 48)
    pixels = decode_photo(path)
    assert pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8
    assert pixels[40, 8, 0] > 150 and pixels[40, 8, 2] < 60
    assert pixels[40, 60, 2] > 150
    if extension != "bmp":
        assert info.gps.lat == pytest.approx(-33.8583333, abs=1e-6)


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, extension, orientation):
    stored = picture()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    path = save(tmp_path / f"a.{extension}", stored, exif=exif_of(orientation=orientation))
    info = read_photo_info(path)
    pixels = decode_photo(path)
    assert (info.width, info.height) == (64, 48) == (pixels.shape[1], pixels.shape[0])
    assert pixels[2, 2].min() > 200, "the white corner is at the top left"
    assert pixels[40, 8, 0] > 150 and pixels[40, 60, 2] > 150


def test_shrinks_without_changing_shape(tmp_path):
    path = save(tmp_path / "a.jpg", picture(1000, 600), exif=exif_of(orientation=6))
    pixels = decode_photo(path, max_side=100)
    assert pixels.shape == (100, 60, 3)
    assert decode_photo(path.read_bytes(), max_side=5000).shape == (1000, 600, 3)


def test_greys_alpha_and_cmyk_become_rgb(tmp_path):
    deep = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    grey = decode_photo(save(tmp_path / "a.png", Image.fromarray(deep)))
    assert grey[0, 0].tolist() == [0, 0, 0] and grey[-1, -1].tolist() == [255, 255, 255]
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_photo(save(tmp_path / "b.png", clear))[0, 0].tolist() == [255, 255, 255]
    assert decode_photo(save(tmp_path / "c.jpg", picture().convert("CMYK"))).shape == (48, 64, 3)


def reason(path: Path, **limits: int) -> str:
    with pytest.raises(BadPhoto) as caught:
        read_photo_info(path, **limits)
    with pytest.raises(BadPhoto):
        decode_photo(path, **limits)
    assert caught.value.exit_code == 3
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, str(again)) == (caught.value.reason, str(caught.value))
    return caught.value.reason


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif", "heic"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_cut_files_are_found(tmp_path, extension, share):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8))
    path = save(tmp_path / f"a.{extension}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert reason(path) in ("truncated", "unreadable")
    if extension == "jpg":
        assert reason(path) == "truncated"


def test_other_bad_files(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("this is no picture")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    stub = tmp_path / "stub.jpg"
    stub.write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 30)
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    good = save(tmp_path / "good.jpg")
    assert reason(text) == "wrong_extension"
    assert reason(empty) == "truncated"
    assert reason(stub) == "unreadable"
    assert reason(pipe) == "unreadable"
    assert reason(tmp_path) == "unreadable"
    assert reason(tmp_path / "none.jpg") == "missing_file"
    assert reason(good, max_bytes=100) == "too_large"
    assert reason(good, max_pixels=64 * 48 - 1) == "bomb"
    assert read_photo_info(good, max_pixels=64 * 48).width == 64


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    head = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    )
    import zlib

    head += struct.pack(">I", zlib.crc32(head[12:29]))
    path = tmp_path / "bomb.png"
    body = zlib.compress(b"\0" * 1000)
    path.write_bytes(
        head + struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    )
    assert reason(path) == "bomb"


def test_broken_exif_does_not_lose_the_photo(tmp_path):
    stream = io.BytesIO()
    picture().save(stream, "JPEG", exif=exif_of(GPS))
    data = bytearray(stream.getvalue())
    start = data.index(b"Exif\0\0") + 6
    data[start + 4 : start + 8] = b"\xff\xff\xff\x7f"  # the first directory lies beyond the end
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    info = read_photo_info(path)
    assert info.width == 64 and info.gps.lat is None and info.captured_at is None


def test_heic_of_a_phone(tmp_path):
    heif = pillow_heif.from_pillow(picture())
    path = tmp_path / "a.heic"
    heif.save(path, exif=exif_of(GPS, orientation=6).tobytes(), quality=80)
    info = read_photo_info(path)
    pixels = decode_photo(path)
    assert (info.format, info.width, info.height) == ("HEIF", 48, 64) == ("HEIF", *pixels.shape[1::-1])
    assert pixels[2, -3].min() > 200, "orientation 6: the top left corner goes to the top right, once"
    assert info.gps.lon == pytest.approx(151.21, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((48, 51, 30), 48.858333333),
        (((48, 1), (515, 10), (0, 1)), 48.858333333),
        ((IFDRational(48), IFDRational(0, 0), IFDRational(0, 0)), 48.0),
        ((48.5,), 48.5),
        (48.5, 48.5),
        ("48.858", 48.858),
        (b"-33.5\0", -33.5),
        ("48,51.5N", 48.858333333),
        ("33,30.0S", -33.5),
        ("48° 51' 30\" W", -48.858333333),
        ((-0.0, 30, 0), -0.5),
        ((IFDRational(1, 0), 2, 3), None),
        ((48, 61, 0), None),
        ((48, -1, 0), None),
        ((float("nan"), 0, 0), None),
        ((), None),
        ((1, 2, 3, 4), None),
        ("north", None),
        (None, None),
    ],
)
def test_angles(value, expected):
    assert angle(value) == (None if expected is None else pytest.approx(expected, abs=1e-8))


def test_gps_block_oddities():
    assert parse_gps({}).lat is None
    missing = parse_gps({2: (10, 0, 0), 4: (20, 0, 0)})
    assert (missing.lat, missing.lon, missing.assumed_refs) == (10, 20, True)
    odd = parse_gps({1: b"s\0", 2: (10, 0, 0), 3: "West", 4: "20.5", 31: -1, 17: (IFDRational(5, 0))})
    assert (odd.lat, odd.lon, odd.assumed_refs) == (-10, -20.5, False)
    assert odd.accuracy_m is None and odd.heading_deg is None
    assert parse_gps({1: "S", 2: "-10.0"}).lat == -10, "a sign and a letter mean south once"


@given(
    st.one_of(
        st.none(), st.floats(), st.text(), st.binary(), st.tuples(st.floats(), st.floats()), st.integers()
    )
)
def test_no_value_breaks_the_parsers(value):
    for parse in (angle, heading, number):
        result = parse(value)
        assert result is None or np.isfinite(result)
    turned = heading(value)
    assert turned is None or 0 <= turned < 360
    parse_gps(dict.fromkeys(range(32), value))
    capture_time(dict.fromkeys((0x9003, 0x9004, 0x9291, 0x9011), value), None)


def test_capture_time_prefers_offset_then_gps_then_assumes_utc():
    local = {0x9003: "2020:01:02 03:04:05"}
    gps = datetime(2020, 1, 1, 18, 4, 7, tzinfo=UTC)
    stale = datetime(2019, 12, 24, tzinfo=UTC)
    assert capture_time({**local, 0x9011: "+09:00"}, gps) == (
        datetime(2020, 1, 1, 18, 4, 5, tzinfo=UTC),
        False,
    )
    assert capture_time(local, gps) == (gps, False)
    assert capture_time(local, stale) == (datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), True)
    assert capture_time({}, gps) == (gps, False)
    assert capture_time({0x9003: "0000:00:00 00:00:00"}, None) == (None, False)
    assert capture_time({0x9003: "2999:01:01 00:00:00"}, None)[0] is None
    day = {7: (23, 59, IFDRational(59, 1)), 29: "2020:02:29"}
    assert parse_gps(day).time == datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC)


def test_sniffing():
    assert sniff_format(b"\xff\xd8\xff\xe1") == "JPEG"
    assert sniff_format(b"RIFF....WEBPVP8 ") == "WEBP"
    assert sniff_format(b"\0\0\0\x18ftypmif1") == "HEIF"
    assert sniff_format(b"\0\0\0\x18ftypmp42") is None
    assert sniff_format(b"BM, a text") is None
    assert sniff_format(b"") is None


def test_real_photos(shared):
    files = sorted((shared / "data/ground/helsinki_fi_pairs/images").iterdir())
    assert len(files) == 10
    for path in files:
        info = read_photo_info(path)
        assert decode_photo(path, max_side=128).shape[0:2] == pytest.approx(
            np.array([info.height, info.width]) * 128 / max(info.width, info.height), abs=1.0
        )
