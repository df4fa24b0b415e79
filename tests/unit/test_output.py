"""What people read: tables that fit a terminal or go unfolded to a pipe, errors of libraries as ours."""

from __future__ import annotations

import errno
import json
import re

import psycopg
import pytest
import redis
from rich.console import Console

from geofix.cli import output
from geofix.cli.foreign import own_error
from geofix.errors import EXIT_INTERRUPT, BadInputError, NotFoundError, ServiceError

ROWS = [("somewhere/" * 12 + "photo.jpg", 5_318_938_011_446_093_979, 0.25), ("b", 7, None)]


def plain_text(capsys) -> str:
    """What was printed, without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of so many columns."""

    def narrow(width: int) -> None:
        monkeypatch.setattr(output, "_out", Console(width=width, force_terminal=True, no_color=True))

    return narrow


def test_in_a_pipe_every_row_is_one_line_without_spaces_at_its_end(capsys):
    output.table(("file", "cell", "score"), ROWS, grouped=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(text == text.rstrip() for text in lines)
    assert lines[2].split() == [ROWS[0][0], "5318938011446093979", "0.25"]
    assert lines[3].split() == ["b", "7", "-"]


def test_a_table_too_wide_for_the_terminal_becomes_records(capsys, terminal):
    columns, row = ("place", *(f"cell_{i}" for i in range(4))), ("here", *[5_318_938_011_446_093_979] * 4)
    terminal(80)
    output.table(columns, [row, row])
    said = plain_text(capsys)
    assert said.count("cell_3  5,318,938,011,446,093,979") == 2 and "- 2 -" in said
    terminal(200)
    output.table(columns, [row, row])
    assert "- 2 -" not in (said := plain_text(capsys))
    assert max(map(len, said.splitlines())) <= 200


def test_a_table_that_fits_stays_a_table(capsys, terminal):
    terminal(80)
    output.table(("file", "words"), [(ROWS[0][0], "many words that may be folded " * 6)])
    assert "─" in (said := plain_text(capsys)) and "- 1 -" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_nested_results_read_as_words(capsys):
    output.emit(
        {"photos": {"train": 1200, "val": 3}, "model_id": 1200, "found": [], "p": 1e-5}, as_json=False
    )
    lines = [text.split(maxsplit=1) for text in capsys.readouterr().out.splitlines()]
    assert lines == [["photos", "train 1,200, val 3"], ["model_id", "1200"], ["found", "-"], ["p", "1e-05"]]
    output.emit([{"level": 13, "cells": 4}, {"level": 15, "cells": 9}], as_json=False)
    assert [text.split() for text in capsys.readouterr().out.splitlines()][2:] == [["13", "4"], ["15", "9"]]


def test_json_is_one_document_without_nan(capsys):
    output.emit({"a": float("nan"), "b": "ä"}, as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": None, "b": "ä"} and said.err == ""


def test_markup_and_emoji_in_data_are_text(capsys):
    output.say("[red]level:us:[/]")
    output.table(("a",), [("[bold]x[/]",)])
    said = capsys.readouterr()
    assert said.err == "[red]level:us:[/]\n" and "[bold]x[/]" in said.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("No code set is named x."), 3),
        (KeyboardInterrupt(), EXIT_INTERRUPT),
        (psycopg.OperationalError("server closed\nthe connection"), 4),
        (psycopg.DataError("no such level"), 3),
        (redis.exceptions.ConnectionError("refused"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.csv"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 3),
        (OSError(errno.ENOSPC, "No space left", "big.parquet"), 4),
        (ZeroDivisionError("two\nlines"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_is_one_line_and_an_exit_code(capsys, error, code):
    assert output.fail(error) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1


def test_only_faults_of_the_program_are_unknown():
    assert own_error(KeyError("x")) is None
    assert isinstance(own_error(psycopg.errors.InvalidParameterValue("level 44")), BadInputError)
    assert isinstance(own_error(psycopg.InterfaceError("closed")), ServiceError)
    assert isinstance(own_error(MemoryError()), ServiceError)
