"""Split invariants on small synthetic towns."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geofix.errors import BadInputError, UsageError
from geofix.snapshots.groups import arc_m, chord, nearest_m, photo_groups, unit_vectors
from geofix.snapshots.leaks import find_leaks, prove
from geofix.snapshots.split import SPLITS, Split, split_photos
from geofix.spatial import s2
from geofix.spatial.distance import great_circle_m


def town(
    n_sequences: int = 120,
    length: int = 10,
    *,
    seed: int = 0,
    size_deg: float = 0.12,
    origin: tuple = (8.0, 47.0),
) -> pd.DataFrame:
    """Short walks of about 20 m per photo, scattered over a square."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, size_deg, (n_sequences, 1, 2))
    heading = rng.uniform(0, 2 * np.pi, (n_sequences, 1))
    step = np.arange(length)[None, :] * 2e-4
    lon = (origin[0] + start[..., 0] + step * np.cos(heading)).ravel()
    lon = (lon + 180) % 360 - 180
    lat = (origin[1] + start[..., 1] + step * np.sin(heading)).ravel()
    n = len(lon)
    return pd.DataFrame(
        {
            "photo_id": rng.permutation(n).astype(np.int64),
            "lon": lon,
            "lat": lat,
            "s2_id": s2.cell_at(lon, lat, 30),
            "dataset": "town",
            "sequence_key": np.repeat([f"s{i}" for i in range(n_sequences)], length),
            "sha256": [hashlib.sha256(str((seed, i)).encode()).hexdigest() for i in range(n)],
            "captured_at": pd.date_range("2024-05-01", periods=n, freq="s", tz="UTC"),
        }
    )


def check_invariants(table: pd.DataFrame, split: Split) -> None:
    """Everything a split promises, checked without its own code where that is possible."""
    labels = split.labels
    assert set(labels) <= {*SPLITS, "dropped"}
    assert sum(split.counts.values()) == len(table)
    assert ((labels == "dropped") == (split.reason != "")).all()
    kept = labels != "dropped"
    # No sequence and no copy in two splits.
    frame = table.assign(split=labels)[kept]
    assert (frame.groupby(["dataset", "sequence_key"])["split"].nunique() <= 1).all()
    assert (frame.groupby("sha256")["split"].nunique() <= 1).all()
    # Nothing of another split within the buffer of a test_unseen photo, by brute force.
    test, rest = labels == "test_unseen", kept & (labels != "test_unseen")
    lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
    if test.any() and rest.any():
        far = great_circle_m(lon[test][:, None], lat[test][:, None], lon[rest][None], lat[rest][None])
        assert far.min() > split.config.buffer_m
    # Whole blocks are held out: none has test_unseen and any other kept photo.
    blocks = s2.parent(table["s2_id"].to_numpy(), split.config.block_level)
    assert not np.isin(blocks[rest], blocks[test]).any()
    # Seen photos lie in cells with training photos, unseen val photos do not share a block with training.
    cells = s2.parent(table["s2_id"].to_numpy(), split.config.cell_level)
    trained = cells[labels == "train"]
    seen = (labels == "test_seen") | ((labels == "val") & ~split.unseen)
    assert np.isin(cells[seen], trained).all()
    held = (labels == "val") & split.unseen
    assert not np.isin(blocks[held], blocks[labels == "train"]).any()
    prove(table.assign(split=labels), buffer_m=split.config.buffer_m)


def test_a_town_is_split_in_the_wanted_shares() -> None:
    table = town(600)
    split = split_photos(table, buffer_m=100)
    check_invariants(table, split)
    n = len(table)
    assert 0.04 < split.counts["test_unseen"] / n < 0.12
    assert 0.04 < split.counts["test_seen"] / n < 0.12
    val = split.labels == "val"
    assert 0.05 < val.sum() / n < 0.15
    assert 0.25 < split.unseen[val].mean() < 0.75
    assert split.counts["train"] > 0.5 * n
    assert split.dropped["buffer"] > 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_sequences=st.integers(30, 150),
    length=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    block_level=st.integers(11, 15),
    buffer_m=st.floats(0, 500),
    test=st.floats(0.02, 0.4),
    duplicates=st.integers(0, 10),
)
def test_invariants_hold_whatever_the_town(
    n_sequences: int, length: int, seed: int, block_level: int, buffer_m: float, test: float, duplicates: int
) -> None:
    table = town(n_sequences, length, seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(duplicates):
        a, b = rng.integers(0, len(table), 2)
        table.loc[a, "sha256"] = table.loc[b, "sha256"]
    split = split_photos(table, required=(), block_level=block_level, buffer_m=buffer_m, test=test, seed=seed)
    check_invariants(table, split)


def test_the_order_of_rows_does_not_matter_but_the_seed_does() -> None:
    table = town(200, seed=3)
    first = pd.Series(split_photos(table).labels, index=table["photo_id"])
    mixed = table.sample(frac=1, random_state=1)
    second = pd.Series(split_photos(mixed).labels, index=mixed["photo_id"])
    assert (first.sort_index() == second.sort_index()).all()
    other = pd.Series(split_photos(table, seed=1).labels, index=table["photo_id"])
    assert (first != other).any()


def test_ids_are_computed_when_absent() -> None:
    table = town(200, seed=3)
    assert (split_photos(table).labels == split_photos(table.drop(columns="s2_id")).labels).all()


def test_across_the_antimeridian_and_a_face_edge() -> None:
    for origin in ((179.95, 10.0), (8.9, 44.9)):
        table = town(400, seed=4, origin=origin)
        check_invariants(table, split_photos(table, buffer_m=150))


def test_sequence_running_out_of_a_block_is_cut_not_shared() -> None:
    table = town(150, 60, seed=5, size_deg=0.2)
    split = split_photos(table, required=())
    check_invariants(table, split)
    assert split.dropped.get("sequence", 0) > 0


def test_photos_without_sequence_are_their_own_and_copies_share_one() -> None:
    table = pd.DataFrame(
        {
            "photo_id": range(6),
            "dataset": ["a", "a", "b", "a", "a", "a"],
            "sequence_key": ["x", "x", "x", None, "", "y"],
            "sha256": ["1", "2", "3", "4", "5", "4"],
        }
    )
    group = photo_groups(table)
    # 0 and 1 walk together; 2 has the same key in another data set; 3 and 5 are copies; 4 is alone.
    assert group.tolist() == [0, 0, 1, 2, 3, 2]
    assert photo_groups(table[["photo_id"]]).tolist() == list(range(6))
    assert photo_groups(table.assign(sha256=[b"\x01", None, b"\x02", b"\x01", None, None])).tolist() == [
        0,
        0,
        1,
        0,
        2,
        3,
    ]


def test_empty_splits_are_refused_with_figures_and_advice() -> None:
    middle = s2.center(s2.cell_at(np.array([8.0]), np.array([47.0]), 13))
    one_block = town(50, size_deg=1e-4, origin=(float(middle[0][0]), float(middle[1][0])))
    figures = r"test_unseen empty: 500 photos in 50 .*1 block.*--block-level above 13"
    with pytest.raises(BadInputError, match=figures):
        split_photos(one_block)
    lonely = town(40, 1, size_deg=3.0)
    with pytest.raises(BadInputError, match=r"test_seen empty.*more sequences per cell"):
        split_photos(lonely)
    one_walk = town(1, 300)
    with pytest.raises(BadInputError, match="track mode"):
        split_photos(one_walk)
    assert split_photos(lonely, required=("train", "test_unseen")).counts["test_seen"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"test": 0.95},
        {"test": -0.1},
        {"block_level": 16},
        {"buffer_m": -1},
        {"mode": "random"},
        {"cell_level": 31},
    ],
)
def test_impossible_options(options: dict) -> None:
    with pytest.raises(UsageError):
        split_photos(town(10), **options)


def test_unusable_tables() -> None:
    table = town(20)
    with pytest.raises(BadInputError, match="lacks columns"):
        split_photos(table.drop(columns="lon"))
    with pytest.raises(BadInputError, match="no photos"):
        split_photos(table.iloc[:0])
    with pytest.raises(BadInputError, match="occur twice"):
        split_photos(pd.concat([table, table]))
    with pytest.raises(BadInputError, match="no valid position"):
        split_photos(table.assign(lat=np.where(table.index == 3, np.nan, table["lat"])))
    with pytest.raises(BadInputError, match="no captured_at"):
        split_photos(table.assign(captured_at=pd.NaT), mode="track")


def walk(n: int = 600) -> pd.DataFrame:
    """One recording of 12 m per frame, a frame every two seconds, with a curve and a loop back."""
    table = town(1, n)
    t = np.arange(n)
    table["lon"] = 8 + 1e-4 * t * (t < n // 2) + 1e-4 * (n // 2) * (t >= n // 2)
    table["lat"] = 47 + 1e-4 * np.maximum(t - n // 2, 0)
    table["s2_id"] = s2.cell_at(table["lon"].to_numpy(), table["lat"].to_numpy(), 30)
    table["photo_id"] = t
    table["captured_at"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(2 * t, unit="s")
    return table


@pytest.mark.parametrize("seed", range(6))
def test_a_track_is_cut_along_time(seed: int) -> None:
    table = walk()
    split = split_photos(table, mode="track", seed=seed, buffer_m=100, gap_s=10)
    assert all(split.counts[name] > 0 for name in SPLITS)
    labels = split.labels
    runs = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    # A random split of 600 frames would have hundreds of runs.
    assert len(runs) < 60
    unseen = np.flatnonzero(labels == "test_unseen")
    assert (np.diff(unseen) == 1).all() and (unseen[0] == 0 or unseen[-1] == len(table) - 1)
    seconds = 2.0 * np.arange(len(table))
    train = seconds[labels == "train"]
    for name in ("test_seen", "val"):
        apart = np.abs(seconds[labels == name][:, None] - train[None]).min()
        assert apart > 10
    prove(table.assign(split=labels), buffer_m=100, sequences=False)
    assert split.counts["train"] > 300
    again = split_photos(
        table.sample(frac=1, random_state=0), mode="track", seed=seed, buffer_m=100, gap_s=10
    )
    assert again.counts == split.counts


@pytest.mark.shared
def test_a_real_walk_is_cut_along_time(shared: Path) -> None:
    table = pd.read_csv(shared / "data/ground/wuhan_cn_walk/metadata.csv")
    stamp = table["captured_at"].str.replace(r":(\d{3})$", r".\1", regex=True)
    table = table.assign(
        photo_id=table["image_path"], sequence_key=table["group_id"], captured_at=pd.to_datetime(stamp)
    )
    split = split_photos(table, mode="track", buffer_m=100)
    assert all(split.counts[name] >= 10 for name in SPLITS)
    prove(table.assign(split=split.labels), buffer_m=100, sequences=False)


def test_many_photos_need_no_square() -> None:
    # A pairwise matrix of 100,000 photos would need 80 GB.
    table = town(10_000, 10, size_deg=1.0)
    split = split_photos(table)
    assert all(split.counts[name] > 0 for name in SPLITS)
    assert find_leaks(table.assign(split=split.labels)) == []


def test_distances_by_chord_equal_great_circles() -> None:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(-180, 180, 300), rng.uniform(-90, 90, 300)
    points = unit_vectors(lon, lat)
    metres, index = nearest_m(points[:100], points[100:])
    far = great_circle_m(lon[:100, None], lat[:100, None], lon[None, 100:], lat[None, 100:])
    np.testing.assert_allclose(metres, far.min(axis=1), rtol=1e-9)
    assert (index == far.argmin(axis=1)).all()
    assert float(arc_m(np.array([chord(200.0)]))[0]) == pytest.approx(200.0, abs=1e-6)
    assert nearest_m(points[:2], points[:0])[1].tolist() == [-1, -1]


def test_a_share_of_the_training_photos():
    table = town(200, seed=3)
    whole = split_photos(table, seed=1)
    kept = {}
    for share in (0.5, 0.1):
        thin = split_photos(table, seed=1, train_share=share)
        others = whole.labels != "train"
        assert (thin.labels[others] == whole.labels[others]).all()
        gone = (whole.labels == "train") & (thin.labels != "train")
        assert set(thin.reason[gone]) == {"share"} and set(thin.labels[gone]) == {"dropped"}
        assert thin.counts["train"] == pytest.approx(share * whole.counts["train"], rel=0.25)
        kept[share] = set(table["photo_id"][thin.labels == "train"])
    assert kept[0.1] < kept[0.5]
    with pytest.raises(UsageError, match="train_share"):
        split_photos(table, train_share=0)
