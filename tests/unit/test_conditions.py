"""Seen test photos in the season and light of a training photo are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from geofix.snapshots.conditions import conditions_report, same_conditions
from geofix.spatial import s2

HERE, THERE = (int(s2.cell_at(lon, 47.0, 30)) for lon in (8.0, 8.1))


def photos(*rows: tuple[str, str | None, int, str]) -> pd.DataFrame:
    """split, captured_at, leaf cell, sequence."""
    table = pd.DataFrame(rows, columns=["split", "captured_at", "s2_id", "sequence_key"])
    table["captured_at"] = pd.to_datetime(table["captured_at"], utc=True)
    return table.assign(photo_id=np.arange(len(table)), dataset="d")


def same(test: str, train: str, **options: Any) -> bool:
    table = photos(("test_seen", test, HERE, "a"), ("train", train, HERE, "b"))
    return bool(same_conditions(table, level=15, **options)[0])


@pytest.mark.parametrize(
    ("test", "train", "expected"),
    [
        ("2020-06-01T10:00", "2020-06-20T11:30", True),
        ("2020-06-01T10:00", "2020-06-20T12:30", False),  # another hour
        ("2020-06-01T10:00", "2020-07-20T10:00", False),  # another season
        ("2020-06-01T10:00", "2016-06-10T10:00", True),  # the season counts, not the year
        ("2020-12-25T10:00", "2021-01-10T10:00", True),  # around the end of the year
        ("2020-06-01T23:30", "2020-06-03T00:45", True),  # around midnight
        ("2020-06-01T10:00", "2020-07-01T10:00", True),  # exactly the bound
        ("2020-06-01T10:00", "2020-06-01T12:00", True),
    ],
)
def test_season_and_hour(test: str, train: str, expected: bool) -> None:
    assert same(test, train) is expected
    assert same(train, test) is expected


def test_bounds_are_options() -> None:
    assert same("2020-06-01T10:00", "2020-06-20T15:00", hours=6)
    assert not same("2020-06-01T10:00", "2020-06-20T11:00", days=10)


def test_only_training_photos_of_the_same_cell_count() -> None:
    when = "2020-06-01T10:00"
    table = photos(
        ("test_seen", when, HERE, "a"),
        ("train", when, THERE, "b"),
        ("val", when, HERE, "c"),
        ("test_unseen", when, HERE, "d"),
    )
    assert not same_conditions(table, level=15).any()
    assert same_conditions(table, level=5).tolist() == [True, False, False, False]


def test_report_counts_photos_and_groups() -> None:
    when, later = "2020-06-01T10:00", "2020-09-01T10:00"
    table = photos(
        ("train", when, HERE, "t"),
        ("test_seen", when, HERE, "a"),
        ("test_seen", later, HERE, "a"),
        ("test_seen", later, HERE, "b"),
        ("test_seen", None, HERE, "c"),
        ("dropped", when, HERE, "e"),
    )
    assert conditions_report(table, level=15) == {
        "split": "test_seen",
        "level": 15,
        "days": 30.0,
        "hours": 2.0,
        "photos": 4,
        "photos_same": 1,
        "photos_without_time": 1,
        "groups": 3,
        "groups_same": 1,
        "share": 1 / 3,
    }
    empty = conditions_report(photos(("train", when, HERE, "t")), level=15)
    assert (empty["photos"], empty["share"]) == (0, None)


def test_agrees_with_every_pair() -> None:
    rng = np.random.default_rng(1)
    n = 300
    table = pd.DataFrame(
        {
            "photo_id": np.arange(n),
            "split": rng.choice(["train", "test_seen"], n),
            "s2_id": rng.choice([HERE, THERE], n),
            "captured_at": pd.Timestamp("2019-01-01", tz="UTC")
            + pd.to_timedelta(rng.integers(0, 3 * 365 * 24, n), unit="h"),
        }
    )
    found = same_conditions(table, level=15, days=5)
    time = table["captured_at"]
    hour = time.dt.hour.to_numpy(np.float64)
    day = time.dt.day_of_year.to_numpy() - 1 + hour / 24
    for i in np.flatnonzero(table["split"] == "test_seen"):
        apart = np.abs(day - day[i])
        hours = np.abs(hour - hour[i])
        near = (np.minimum(apart, 365.25 - apart) <= 5) & (np.minimum(hours, 24 - hours) <= 2)
        near &= (table["split"] == "train").to_numpy() & (table["s2_id"] == table["s2_id"][i]).to_numpy()
        assert found[i] == near.any()
    assert 0 < found.sum() < (table["split"] == "test_seen").sum()
