"""Every command that a message, an empty page or a document tells somebody to type exists as it is told."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from geofix.cli.main import app

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("platform/geofix/**/*.py"), *ROOT.glob("dashboard/**/*.py")]
SOURCES += ROOT.glob("workers/**/*.py")
PAGES = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")]
# A command ends where its quotation, its line or its sentence does.
COMMAND = re.compile(r"(?:^|[`'\"(]|Example: |Run |\$ )geofix ((?:[^`\n\"]|\"[^\"\n]*\")+)", re.MULTILINE)


def texts(path: Path) -> Iterator[str]:
    """Texts of a file: string literals of Python, with {} for what is put into them; lines of Markdown."""
    if path.suffix == ".md":
        yield path.read_text(encoding="utf-8")
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(v.value if isinstance(v, ast.Constant) else "NAME" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def told(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Commands that a file tells: as written, and their words."""
    for text in texts(path):
        for found in COMMAND.finditer(text):
            line = re.split(r"\s#|&&|\s\||;|\s→|, then|\.(?:\s|$)", found[1])[0].strip(" .,:)'")
            try:
                words = shlex.split(line)
            except ValueError:
                words = line.split()
            if words and re.fullmatch(r"[a-z]+", words[0]):
                yield f"geofix {line}", words


def resolve(words: list[str]) -> tuple[Any, list[str]] | None:
    """The command that words begin with, and the words behind it; None where they are prose."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        inner = command.get_command(None, words[0])
        if inner is None:
            return None if command.name in (None, "geofix", "main") else (command, words)
        command, words = inner, words[1:]
    return command, words


def fault(command: Any, words: list[str]) -> str | None:
    """What is wrong with the options of a command as it is told."""
    known = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    known["--help"] = None
    for word in words:
        name = word.split("=")[0].strip("[]")
        if name.startswith("--") and name not in known:
            return f"has no option {name}"
    if any(p.param_type_name == "argument" for p in command.params) or hasattr(command, "get_command"):
        return None
    expects_value = False
    for word in words:
        name = word.split("=")[0].strip("[]")
        if name.startswith("-"):
            parameter = known.get(name)
            expects_value = parameter is not None and not parameter.is_flag and "=" not in word
        elif expects_value:
            expects_value = False
        elif not re.fullmatch(r"[a-z]+:?|\[.*|.*\]|\.\.\.|…", word):  # prose may follow in small letters
            return f"takes no argument, and is told {word!r}"
    return None


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_told_commands_exist(path: Path) -> None:
    wrong = []
    for line, words in told(path):
        found = resolve(words)
        if found is None:
            wrong.append(f"{line}: there is no such command")
        elif (what := fault(*found)) is not None:
            wrong.append(f"{line}: {what}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_command_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text('A = "geofix codes build --name X"\nB = "geofix codes index CODES"\n', encoding="utf-8")
    faults = [fault(*found) for _, words in told(page) if (found := resolve(words)) is not None]
    assert faults == ["has no option --name", "takes no argument, and is told 'CODES'"]
