"""Whatever a command returns becomes JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from geofix.plain import plain


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    path: Path
    when: date


@dataclass
class Outer:
    inner: Inner
    error_m: float


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (np.float32("nan"), None),
        (np.array([[1.5, np.nan], [np.inf, 2.0]]), [[1.5, None], [None, 2.0]]),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.array(3), 3),
        (np.array(["a", "b"]), ["a", "b"]),
        (True, True),
        (Decimal("12.5"), 12.5),
        (Decimal("NaN"), None),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00+00:00"),
        (date(2020, 1, 2), "2020-01-02"),
        (Path("/a/b"), "/a/b"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "00ff"),
        (memoryview(b"\x01"), "01"),
        (Colour.RED, "red"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: {"x": np.float64(1)}, "y": None}, {"1": {"x": 1.0}, "y": None}),
        (
            Outer(Inner(path=Path("p"), when=date(2020, 1, 2)), float("inf")),
            {"inner": {"path": "p", "when": "2020-01-02"}, "error_m": None},
        ),
    ],
)
def test_every_kind_of_value_becomes_json(value, wanted):
    found = plain(value)
    assert found == wanted and type(found) is type(wanted)
    assert json.loads(json.dumps(found, allow_nan=False)) == wanted


def test_what_is_plain_stays_as_it_is_and_is_copied():
    value = {"a": [1, 2.5, "x", None, True]}
    found = plain(value)
    assert found == value and found is not value and found["a"] is not value["a"]
    assert plain(plain(value)) == value


def test_a_name_that_is_no_utf8_reaches_stdout_as_json():
    """As a command prints it: the bytes can be had back from the JSON."""
    script = (
        "import sys; from geofix.cli import main, output\n"
        "main.app = lambda **_: output.emit({'photo': 'caf\\udce9'}, as_json=True)\n"
        "main.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert os.fsencode(json.loads(done.stdout)["photo"]) == b"caf\xe9"
