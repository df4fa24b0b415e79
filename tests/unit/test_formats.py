from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.ingest.formats import detect_format, read_rows
from geofix.ingest.formats import mapillary as mapillary_format
from geofix.ingest.formats.base import parse_time, printable


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected", "assumed"),
    [
        ("2019-12-29 13:35:13:170", at(2019, 12, 29, 13, 35, 13, 170_000), True),
        ("2021_02_13_13_24_41_140", at(2021, 2, 13, 13, 24, 41, 140_000), True),
        ("2021:02:13 13:24:41", at(2021, 2, 13, 13, 24, 41), True),
        ("2021-02-13T13:24:41Z", at(2021, 2, 13, 13, 24, 41), False),
        ("2021-02-13T13:24:41.5+02:00", at(2021, 2, 13, 11, 24, 41, 500_000), False),
        ("2021-02-13 13:24-0530", at(2021, 2, 13, 18, 54), False),
        ("2021-02-13", at(2021, 2, 13), True),
        ("2014-07-10 14:11:55.0", at(2014, 7, 10, 14, 11, 55), True),
        (1613222681, at(2021, 2, 13, 13, 24, 41), False),
        ("1613222681140", at(2021, 2, 13, 13, 24, 41, 140_000), False),
        (1613222681140.0, at(2021, 2, 13, 13, 24, 41, 140_000), False),
        (datetime(2020, 1, 2), at(2020, 1, 2), True),
    ],
)
def test_times(text, expected, assumed):
    assert parse_time(text) == (expected, assumed, False)


@pytest.mark.parametrize(
    "text", ["yesterday", "2021-13-01", "2021-02-30 10:00:00", "0000:00:00 00:00:00", "7", "9999-01-01"]
)
def test_times_that_are_none(text):
    assert parse_time(text) == (None, False, True)


@pytest.mark.parametrize("text", [None, "", "  ", float("nan")])
def test_absent_times(text):
    assert parse_time(text) == (None, False, False)


def test_csv_default_columns(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "\ufeffimage_path,LAT,Longitude,heading_deg,captured_at,group_id,gps_accuracy_m,licence,country\n"
        'a.jpg,1.5,-2.5,-10,2019-12-29 13:35:13:170,walk,4.5,"CC BY, 4.0",FIN\n'
        "\n"
        "b.jpg,,,,,,,,\n"
        "c.jpg,north,1,,,,,,\n"
        "d.jpg,1,2,,noon,,,,\n"
        "e.jpg,1,2,,,,,,,surplus\n"
        "f.jpg,inf,2,400,,,-3,,\n"
    )
    rows = list(read_rows(path))
    first = rows[0]
    assert (first.line, first.image_path, first.lat, first.lon, first.heading_deg) == (
        1,
        "a.jpg",
        1.5,
        -2.5,
        350,
    )
    assert first.captured_at == at(2019, 12, 29, 13, 35, 13, 170_000) and first.time_assumed_utc
    assert (first.sequence, first.gps_accuracy_m, first.licence) == ("walk", 4.5, "CC BY, 4.0")
    assert first.extra == {"country": "FIN"}
    assert rows[1].lat is None and rows[1].problem is None
    assert [row.problem and row.problem[0] for row in rows[2:]] == [
        "bad_position",
        "bad_time",
        "bad_row",
        "bad_position",
    ]
    assert rows[5].heading_deg is None and rows[5].gps_accuracy_m is None


def test_csv_delimiters_decimal_commas_and_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("image_path;lat;lon\nstra\xdfe.jpg;48,5;2,25\n".encode("latin-1"))
    (row,) = read_rows(path)
    assert (row.lat, row.lon) == (48.5, 2.25)
    assert row.image_path == "stra\udcdfe.jpg" and printable(row.image_path) == "stra\\xdfe.jpg"


def test_column_mapping_and_its_errors(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("bild,y,x,nummer\na.jpg,1,2,77\n")
    with pytest.raises(BadInputError, match=r"no column for lat and lon.*bild, y, x, nummer"):
        list(read_rows(path))
    with pytest.raises(BadInputError, match=r"no column 'breite', named for lat.*bild, y, x, nummer"):
        list(read_rows(path, columns={"lat": "breite", "lon": "x"}))
    with pytest.raises(UsageError, match=r"'latt'"):
        list(read_rows(path, columns={"latt": "y"}))
    columns = {"lat": "y", "lon": "x", "image_path": "photos/{nummer}.jpg"}
    (row,) = read_rows(path, columns=columns)
    assert (row.image_path, row.lat, row.lon) == ("photos/77.jpg", 1, 2)
    with pytest.raises(BadInputError, match=r"no column 'nummer.__class__'"):
        list(read_rows(path, columns={**columns, "image_path": "{nummer.__class__}"}))


def test_detection_by_content(tmp_path):
    samples = {
        "geoestimation": "IMG_ID,AUTHOR,LAT,LON,S3_Label\na.jpg,x,1,2,0\n",
        "osv5m": "id,latitude,longitude,thumb_original_url,country,sequence,captured_at\n1,1,2,u,FI,s,\n",
        "csv": "image_path,lat,lon\n",
        "geojson": '{"type": "FeatureCollection", "features": []}',
        "mapillary": '[{"MAPLatitude": 1}]',
    }
    for name, text in samples.items():
        path = tmp_path / "file.txt"
        path.write_text(text)
        assert detect_format(path) == name
    with pytest.raises(NotFoundError):
        detect_format(tmp_path / "none")
    for data in (b"", b"\0\1\2"):
        path.write_bytes(data)
        with pytest.raises(BadInputError):
            detect_format(path)
    with pytest.raises(UsageError, match="geojson"):
        list(read_rows(path, name="xml"))


def test_geoestimation_and_osv5m(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("IMG_ID,AUTHOR,LAT,LON,S3_Label,S16_Label\nbb_95_1.jpg,12@N00,-1.5,2.5,0,3\n")
    (row,) = read_rows(path)
    assert (row.image_path, row.author, row.lat, row.lon, row.extra) == (
        "bb_95_1.jpg",
        "12@N00",
        -1.5,
        2.5,
        {},
    )
    path.write_text("id,latitude,longitude,sequence,captured_at\n77,1,2,s1,1613222681140\n")
    (row,) = read_rows(path)
    assert (row.image_path, row.external_id, row.sequence) == ("77.jpg", "77", "s1")
    assert row.captured_at == at(2021, 2, 13, 13, 24, 41, 140_000)


def test_parquet_in_micro_degrees_and_degrees(tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.table(
        {
            "lat_e6": pa.array([36320172, None], pa.int32()),
            "lon_e6": pa.array([127403477, 5], pa.int32()),
            "set": pa.array(["a", "b"]).dictionary_encode(),
            "nested": [[1], [2]],
        }
    )
    pq.write_table(table, path)
    assert detect_format(path) == "parquet"
    first, second = read_rows(path)
    assert (first.lat, first.lon) == (pytest.approx(36.320172), pytest.approx(127.403477))
    assert first.extra == {"set": "a"} and second.lat is None
    times = pa.table({"lat": [1.0], "lon": [2.0], "image_path": ["a"], "captured_at": [datetime(2020, 1, 2)]})
    pq.write_table(times, path)
    (row,) = read_rows(path)
    assert row.captured_at == at(2020, 1, 2) and row.time_assumed_utc
    pq.write_table(pa.table({"lat_e6": [1], "lon": [2.0]}), path)
    with pytest.raises(BadInputError, match="micro-degrees"):
        list(read_rows(path))
    path.write_bytes(b"PAR1 is all there is")
    with pytest.raises(BadInputError, match="not readable as Parquet"):
        list(read_rows(path))


def test_geojson_points(tmp_path):
    path = tmp_path / "p.geojson"
    feature = {"type": "Feature", "properties": {"file": "a.jpg", "heading": 12, "n": 1}}
    features = [
        {**feature, "geometry": {"type": "Point", "coordinates": [24.9, 60.2]}},
        {**feature, "geometry": None},
        {**feature, "geometry": {"type": "LineString", "coordinates": [[0, 1], [2, 3]]}},
        {**feature, "geometry": {"type": "Point", "coordinates": [100.0, 200.0]}},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows = list(read_rows(path))
    assert (rows[0].image_path, rows[0].lat, rows[0].lon, rows[0].heading_deg) == ("a.jpg", 60.2, 24.9, 12)
    assert rows[0].extra == {"n": 1}
    assert rows[1].lat is None and rows[1].problem is None
    assert rows[2].problem is not None and rows[2].problem[0] == "bad_geometry"
    assert rows[3].lat == 200
    path.write_text('{"type": "FeatureCollection", "features": [{]}')
    with pytest.raises(BadInputError, match="not readable as GeoJSON"):
        list(read_rows(path))


def test_a_geopackage_in_another_reference_system(tmp_path):
    path = tmp_path / "p.gpkg"
    frame = geopandas.GeoDataFrame(
        {"image_path": ["a.jpg"]}, geometry=[shapely.Point(4_321_000, 3_210_000)], crs=3035
    )
    frame.to_file(path)
    (row,) = read_rows(path)
    assert (row.lat, row.lon) == (pytest.approx(52, abs=1e-6), pytest.approx(10, abs=1e-6))


DESCRIPTION = {
    "MAPLatitude": 55.69,
    "MAPLongitude": 13.19,
    "MAPCompassHeading": {"TrueHeading": 370.0, "MagneticHeading": 11.0},
    "MAPCaptureTime": "2021_02_13_13_24_41_140",
    "MAPSequenceUUID": "s-1",
    "MAPAltitude": 12.5,
    "filename": "a.jpg",
}
GRAPH = {
    "id": "123",
    "geometry": {"type": "Point", "coordinates": [13.0, 55.0]},
    "computed_geometry": {"type": "Point", "coordinates": [13.1, 55.1]},
    "compass_angle": 90.5,
    "captured_at": 1613222681140,
    "sequence": "s-2",
    "creator": {"username": "ann", "id": "7"},
}


def test_mapillary_description(tmp_path):
    path = tmp_path / "m.json"
    failed = {"filename": "b.jpg", "error": {"type": "MapillaryGPSNoiseError", "message": "GPS is too noisy"}}
    path.write_text(
        json.dumps([{**DESCRIPTION, "MAPCompassHeading": {"TrueHeading": 10.0}}, failed, 3, DESCRIPTION])
    )
    rows = list(read_rows(path))
    first = rows[0]
    assert (first.image_path, first.lat, first.lon, first.heading_deg) == ("a.jpg", 55.69, 13.19, 10)
    assert (first.sequence, first.captured_at) == ("s-1", at(2021, 2, 13, 13, 24, 41, 140_000))
    assert first.extra == {"altitude_m": 12.5}
    assert [row.problem and row.problem[0] for row in rows] == [None, "source_error", "bad_row", None]
    assert rows[3].heading_deg is None, "370 degrees is no direction"


@pytest.mark.parametrize("chunk", [7, 64, 1 << 18])
def test_mapillary_graph_is_streamed(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(mapillary_format, "CHUNK_CHARS", max(chunk, 16))
    path = tmp_path / "m.json"
    for text in (
        json.dumps({"data": [GRAPH] * 5}, indent=1),
        json.dumps([GRAPH] * 5),
        "\n".join([json.dumps(GRAPH)] * 5),
    ):
        path.write_text(text)
        rows = list(read_rows(path, name="mapillary"))
        assert len(rows) == 5
        row = rows[-1]
        assert (row.line, row.image_path, row.external_id, row.author) == (5, "123.jpg", "123", "ann")
        assert (row.lon, row.lat, row.heading_deg, row.sequence) == (13.1, 55.1, 90.5, "s-2")
        assert row.captured_at == at(2021, 2, 13, 13, 24, 41, 140_000) and not row.time_assumed_utc
    path.write_text(json.dumps([GRAPH] * 5)[:-40])
    with pytest.raises(BadInputError):
        list(read_rows(path, name="mapillary"))


def test_mapillary_without_computed_position_and_with_columns(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"data": [{**GRAPH, "computed_geometry": None, "captured_at": "never"}]}))
    (row,) = read_rows(path)
    assert (row.lon, row.lat) == (13.0, 55.0) and row.problem is not None and row.problem[0] == "bad_time"
    with pytest.raises(UsageError):
        list(read_rows(path, columns={"lat": "x"}))


def test_real_metadata(shared):
    ground = shared / "data/ground"
    wuhan = list(read_rows(ground / "wuhan_cn_walk/metadata.csv"))
    assert len(wuhan) == 576 and not [row for row in wuhan if row.problem]
    assert wuhan[0].captured_at == at(2019, 12, 29, 13, 35, 13, 170_000)
    assert all(row.captured_at and row.time_assumed_utc and row.gps_accuracy_m for row in wuhan)
    assert {row.sequence for row in wuhan} == {"walk_2019-12-29"}
    city = list(read_rows(ground / "specs_world_citylevel/metadata.csv"))
    assert len(city) == 100 and {row.gps_accuracy_m for row in city} == {15000}
    helsinki = list(read_rows(ground / "helsinki_fi_pairs/metadata.csv"))
    assert len(helsinki) == 10 and all(row.heading_deg is not None for row in helsinki)
    points = Counter(row.problem is None for row in read_rows(shared / "data/points/photo_points.parquet"))
    assert points == {True: 215_007}
