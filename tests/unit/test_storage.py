from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from geofix.errors import SpaceError
from geofix.settings import Settings
from geofix.storage import free_bytes, nearest_existing, readable_bytes, require_free

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(Path(path))
        return Usage(10_000, 9_000, 1_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


def settings(floor: int) -> Settings:
    return Settings(min_free_bytes=floor, _env_file=None)


@pytest.mark.parametrize(("need", "floor"), [(0, 1_000), (400, 600), (1_000, 0)])
def test_a_write_that_leaves_the_floor_is_let_through(
    disk: list[Path], tmp_path: Path, need: int, floor: int
) -> None:
    require_free(tmp_path, need, settings(floor))


@pytest.mark.parametrize(("need", "floor"), [(1, 1_000), (401, 600), (1_001, 0)])
def test_one_byte_more_is_refused(disk: list[Path], tmp_path: Path, need: int, floor: int) -> None:
    with pytest.raises(SpaceError) as caught:
        require_free(tmp_path / "new" / "file", need, settings(floor))
    assert str(tmp_path / "new" / "file") in str(caught.value)
    assert "1.0 kB are free" in str(caught.value)
    assert "GEOFIX_MIN_FREE_BYTES" in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_path_that_does_not_exist_is_asked_of_its_nearest_folder(disk: list[Path], tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b" / "c.bin") == 1_000
    assert disk == [tmp_path]


def test_nearest_existing_takes_relative_and_existing_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nearest_existing(Path("missing/x")) == tmp_path
    assert nearest_existing(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000_000, "1.5 GB"),
        (2.5e15, "2500.0 TB"),
        (-5000, "-5.0 kB"),
    ],
)
def test_readable_bytes(count: float, text: str) -> None:
    assert readable_bytes(count) == text
