"""The detector must find what the splitter avoids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geofix.errors import SplitLeakError, UsageError
from geofix.snapshots.leaks import find_leaks, prove

METRE = 1 / 111_194.93  # degrees of latitude


@pytest.fixture
def clean() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "photo_id": ["a", "b", "c", "d", "e"],
            "lon": 8.0,
            "lat": [47.0, 47.0, 47.0, 47.1, 47.0],
            "dataset": "x",
            "sequence_key": ["1", "1", "2", "3", "4"],
            "sha256": ["s1", "s2", "s3", "s4", "s5"],
            "split": ["train", "train", "test_seen", "test_unseen", "val"],
        }
    )


def test_a_clean_split_passes(clean: pd.DataFrame) -> None:
    assert find_leaks(clean) == []
    prove(clean)


def test_shared_sequence(clean: pd.DataFrame) -> None:
    clean.loc[2, "sequence_key"] = "1"
    (leak,) = find_leaks(clean)
    assert (leak.kind, leak.photo_id, leak.other_photo_id) == ("sequence", "c", "a")
    assert find_leaks(clean, sequences=False) == []
    with pytest.raises(SplitLeakError, match="test_seen photo c and train photo a share a sequence"):
        prove(clean)


def test_the_same_key_in_another_data_set_is_another_sequence(clean: pd.DataFrame) -> None:
    clean.loc[2, ["sequence_key", "dataset"]] = ["1", "y"]
    assert find_leaks(clean) == []


def test_shared_file(clean: pd.DataFrame) -> None:
    clean.loc[4, "sha256"] = "s4"
    (leak,) = find_leaks(clean)
    assert (leak.kind, {leak.photo_id, leak.other_photo_id}) == ("copy", {"d", "e"})


@pytest.mark.parametrize(("metres", "leaks"), [(199.0, 1), (201.0, 0)])
def test_distance(clean: pd.DataFrame, metres: float, leaks: int) -> None:
    clean.loc[1, "lat"] = 47.1 + metres * METRE
    found = find_leaks(clean, buffer_m=200)
    assert len(found) == leaks
    if found:
        assert found[0].kind == "distance" and found[0].value == pytest.approx(metres, abs=0.01)
        assert found[0].as_record()["other_split"] == "train"


def test_dropped_photos_do_not_count(clean: pd.DataFrame) -> None:
    clean.loc[1, ["lat", "split"]] = [47.1, "dropped"]
    assert find_leaks(clean) == []


def test_look_alikes_of_other_sequences(clean: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 64))
    assert find_leaks(clean, embeddings=vectors) == []
    vectors[3] = 3 * vectors[0] + 1e-3
    (leak,) = find_leaks(clean, embeddings=vectors)
    assert (leak.kind, leak.photo_id, leak.other_photo_id) == ("lookalike", "d", "a")
    assert leak.value > 0.999
    with pytest.raises(UsageError, match="embeddings"):
        find_leaks(clean, embeddings=vectors[:3])


def test_look_alikes_across_blocks_of_the_matrix() -> None:
    n = 5000
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "photo_id": np.arange(n),
            "lon": 8.0,
            "lat": 47.0,
            "sequence_key": [str(i) for i in range(n)],
            "split": np.where(np.arange(n) < 2500, "train", "test_seen"),
        }
    )
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    vectors[4990] = vectors[2400]
    (leak,) = find_leaks(table, embeddings=vectors, min_cosine=0.9999)
    assert (leak.photo_id, leak.other_photo_id) == ("4990", "2400")


def test_many_leaks_are_bounded_and_counted() -> None:
    n = 50
    table = pd.DataFrame({"photo_id": range(n), "lon": 8.0, "lat": 47.0, "sequence_key": "one"})
    table["split"] = ["train"] + ["test_seen"] * (n - 1)
    assert len(find_leaks(table, limit=10)) == 10
    with pytest.raises(SplitLeakError, match=r"49 photo\(s\)"):
        prove(table)
