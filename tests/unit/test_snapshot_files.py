"""Snapshots on disk: whole or absent, verified, streamed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geofix.errors import BadInputError, NotFoundError, UsageError
from geofix.snapshots import format as snapshot_format
from geofix.snapshots.digest import ContentDigest
from geofix.snapshots.format import labelled, write_snapshot
from geofix.snapshots.reader import load_snapshot
from geofix.snapshots.split import split_photos

SOURCES = {"town": {"licence": "CC0-1.0", "attribution": "nobody"}}


def photos(n: int = 1200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "photo_id": rng.permutation(n).astype(np.int64),
            "lon": 8 + rng.uniform(0, 0.1, n),
            "lat": 47 + rng.uniform(0, 0.1, n),
            "dataset": "town",
            "sequence_key": [f"s{i // 5}" if i % 7 else None for i in range(n)],
            "captured_at": pd.date_range("2024-01-01", periods=n, freq="min", tz="UTC"),
            "heading_deg": np.where(np.arange(n) % 3, 90.0, np.nan),
            "uri": [f"photos/{i}.jpg" for i in range(n)],
            "regions": [["CH", "CH-GR"] if i % 2 else ["DE"] for i in range(n)],
        }
    )


@pytest.fixture
def table() -> pd.DataFrame:
    frame = photos()
    return labelled(frame, split_photos(frame, buffer_m=50, required=("train",)))


def test_written_and_read(tmp_path: Path, table: pd.DataFrame) -> None:
    cells = pd.DataFrame({"s2_id": np.array([9, 3, -5], dtype=np.int64), "photos": [1, 2, 3]})
    manifest = write_snapshot(tmp_path / "snap", table, config={"seed": 0}, sources=SOURCES, cells=cells)
    snapshot = load_snapshot(tmp_path / "snap")
    assert snapshot.sha256 == manifest["sha256"] and len(snapshot.sha256) == 64
    kept = table[table["split"] != "dropped"]
    assert sum(snapshot.counts.values()) == len(kept) and snapshot.counts["train"] > 0
    assert snapshot.manifest["sources"] == SOURCES and snapshot.manifest["cells"] == 3
    assert sum(snapshot.manifest["dropped"].values()) == len(table) - len(kept)
    train = snapshot.read(split="train").to_pandas()
    assert len(train) == snapshot.counts["train"] and train["photo_id"].is_monotonic_increasing
    expected = kept.set_index("photo_id").loc[train["photo_id"]]
    np.testing.assert_array_equal(train["heading_deg"], expected["heading_deg"])
    assert train["sequence_key"].isna().sum() == expected["sequence_key"].isna().sum()
    assert [list(r) for r in train["regions"]] == list(expected["regions"])
    assert snapshot.cells().column("s2_id").to_pylist() == [-5, 3, 9]
    assert not [p for p in tmp_path.iterdir() if p.name != "snap"]


def test_streamed_by_row_group(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_format, "ROW_GROUP", 100)
    write_snapshot(tmp_path / "s", table, config={}, sources=SOURCES)
    snapshot = load_snapshot(tmp_path / "s")
    batches = list(snapshot.batches(split="train", columns=["lat", "photo_id"], rows=100))
    assert len(batches) > 3 and all(b.schema.names == ["lat", "photo_id"] for b in batches)
    assert sum(b.num_rows for b in batches) == snapshot.counts["train"]
    assert snapshot.read(columns=["uri", "lon"]).schema.names == ["uri", "lon"]
    with pytest.raises(BadInputError, match="Unknown split"):
        snapshot.read(split="test")
    with pytest.raises(BadInputError, match="no photo columns"):
        snapshot.read(columns=["nothing"])


def test_hash_depends_on_content_alone(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(name: str, frame: pd.DataFrame) -> str:
        return str(write_snapshot(tmp_path / name, frame, config={}, sources=SOURCES)["sha256"])

    first = written("a", table)
    assert written("b", table.sample(frac=1, random_state=0)) == first
    assert written("c", table[table.columns[::-1]]) == first
    assert written("d", table.assign(uri="elsewhere")) == first
    assert written("e", table.assign(split=table["split"].astype("category"))) == first
    monkeypatch.setattr(snapshot_format, "ROW_GROUP", 64)
    assert written("f", table) == first
    moved = table.copy()
    moved.loc[moved.index[table["split"] == "train"][0], "lon"] += 1e-9
    assert written("g", moved) != first
    assert written("h", table.rename(columns={"heading_deg": "heading"})) != first


def test_digest_separates_nulls_blanks_and_boundaries() -> None:
    def of(*values: object, kind: pa.DataType | None = None) -> str:
        digest = ContentDigest()
        digest.update(pa.table({"x": pa.array(values, kind)}))
        return digest.hexdigest()

    assert len({of("ab", "c"), of("a", "bc"), of("", None), of(None, ""), of("abc", "")}) == 5
    assert of(0.0, float("nan")) == of(-0.0, -float("nan"))
    assert of(1, 2) != of(1.0, 2.0)
    assert of("a", "b", kind=pa.large_string()) == of("a", "b")
    assert of([1, 2], []) != of([1], [2])
    assert of(True, None) != of(True, False)


def test_tampering_is_seen(tmp_path: Path, table: pd.DataFrame) -> None:
    out = tmp_path / "s"
    write_snapshot(out, table, config={}, sources=SOURCES)
    manifest_path, photos_path = out / "snapshot.json", out / "photos.parquet"
    manifest = json.loads(manifest_path.read_text())
    data = pq.read_table(photos_path)
    moved = data.set_column(data.schema.get_field_index("split"), "split", pa.array(["train"] * len(data)))
    pq.write_table(moved, photos_path)
    with pytest.raises(BadInputError, match="changed after it was written"):
        load_snapshot(out)
    assert load_snapshot(out, verify=False).sha256 == manifest["sha256"]
    manifest["files"]["photos.parquet"]["sha256"] = snapshot_format.file_sha256(photos_path)
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(BadInputError, match="content hash"):
        load_snapshot(out)
    manifest["format"] = 99
    manifest_path.write_text(json.dumps(manifest))
    with pytest.raises(BadInputError, match="format 99"):
        load_snapshot(out)
    manifest_path.write_text("{")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_snapshot(out)
    with pytest.raises(NotFoundError, match="no snapshot"):
        load_snapshot(tmp_path / "absent")


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(snapshot_format, "_move_into_place", full)
    with pytest.raises(OSError, match="no space"):
        write_snapshot(tmp_path / "s", table, config={}, sources=SOURCES)
    assert list(tmp_path.iterdir()) == []


def test_existing_directories_are_safe(tmp_path: Path, table: pd.DataFrame) -> None:
    (tmp_path / "empty").mkdir()
    write_snapshot(tmp_path / "empty", table, config={}, sources=SOURCES)
    with pytest.raises(UsageError, match="already holds"):
        write_snapshot(tmp_path / "empty", table, config={}, sources=SOURCES)
    write_snapshot(tmp_path / "empty", table.iloc[:100], config={}, sources=SOURCES, overwrite=True)
    assert sum(load_snapshot(tmp_path / "empty").counts.values()) <= 100
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="no snapshot"):
        write_snapshot(tmp_path / "other", table, config={}, sources=SOURCES, overwrite=True)
    assert (tmp_path / "other/thesis.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="split"), "needs the photo columns"),
        (lambda t: t.assign(split="test"), "Unknown splits"),
        (lambda t: t.assign(photo_id=1), "occurs twice"),
        (lambda t: t.assign(dataset="other"), "licence"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, table: pd.DataFrame, change, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        write_snapshot(tmp_path / "s", change(table), config={}, sources=SOURCES)


def test_a_split_belongs_to_its_table() -> None:
    frame = photos(200)
    with pytest.raises(UsageError, match="does not belong"):
        labelled(frame.iloc[:10], split_photos(frame, required=()))


def test_a_snapshot_without_training_cells_can_be_read_back(tmp_path):
    photos = pd.DataFrame(
        {"photo_id": [1, 2], "lon": [1.0, 2.0], "lat": [3.0, 4.0], "split": "test_unseen", "dataset": "d"}
    )
    cells = pd.DataFrame({"s2_id": np.array([], np.int64), "photos": np.array([], np.int32)})
    write_snapshot(tmp_path / "s", photos, config={}, sources={"d": {}}, cells=cells)
    assert load_snapshot(tmp_path / "s").counts["test_unseen"] == 2
