"""What the documents say of the code, compared with the code."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from geofix.cli.main import COMMANDS, NOUNS
from geofix.evaluation.photo_sets import find_set
from geofix.evaluation.protocols import PROTOCOLS
from geofix.evaluation.published import published_results
from geofix.evaluation.set_report import markdown
from geofix.evaluation.set_table import SetTable, add_published
from geofix.imagery.sources import RasterError
from geofix.ingest.checks import REASONS
from geofix.ingest.formats import FORMATS
from geofix.ingest.formats.base import ALIASES
from geofix.jobs.settings import JobSettings
from geofix.pipeline.file import Stage
from geofix.training.config import EncoderSection, TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
DOCS = [
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/decisions/*.md")),
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "README.md",
]
FORMATS_PAGE = (ROOT / "docs/data-formats.md").read_text()
# Pages of the outside that the docs may name; every other host is somebody's machine.
HOSTS = {"keepachangelog.com", "semver.org", "db.example", "redis.example", "localhost"}
HOST = re.compile(r"https?://([^/\s)`'\":]+)")
HOME = re.compile(r"(?<![\w/.])/(?:home|root)/\w")
COMMAND = re.compile(r"\bgeofix ([a-z][a-z-]*)(?: ([a-z]+)\b)?")


def rows(text: str) -> list[list[str]]:
    """Cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code_of(text: str) -> list[str]:
    """Fenced blocks and inline code."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*fenced, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere_and_no_foreign_place_is_named(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
    assert {host for host in HOST.findall(text)} <= HOSTS
    assert HOME.search(text) is None


def test_every_reason_of_a_reject_is_explained() -> None:
    explained = {row[0].strip("`"): row[1].replace("`", "") for row in rows(FORMATS_PAGE) if len(row) == 2}
    assert {reason: explained.get(reason) for reason in REASONS} == dict(REASONS)
    named = set(re.findall(r"``(\w+)``", RasterError.__doc__ or ""))
    assert named and named <= set(re.findall(r"`(\w+)`", FORMATS_PAGE))


def test_every_metadata_format_and_column_is_listed() -> None:
    first = {name.strip("`") for row in rows(FORMATS_PAGE) for name in row[0].split(", ")}
    assert set(FORMATS) <= first
    assert set(ALIASES) <= first
    words = set(re.findall(r"\w+", FORMATS_PAGE))
    assert {alias for aliases in ALIASES.values() for alias in aliases} <= words


def test_every_stage_of_a_pipeline_is_listed_with_its_fields() -> None:
    listed = {row[0].strip("`"): row[1] for row in rows(FORMATS_PAGE) if len(row) == 2}
    stages: tuple[Any, ...] = get_args(get_args(Stage)[0])
    for kind in stages:
        (do,) = get_args(kind.model_fields["do"].annotation)
        fields = set(kind.model_fields) - {"do"}
        assert fields <= set(re.findall(r"\w+", listed.get(do, ""))), do


def keys_of(section: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and default of everything a training configuration may say; `aerial` once, as a whole."""
    for name, item in section.model_fields.items():
        kind, key = item.annotation, before + (item.alias or name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{key}.")
        else:
            yield key, "required" if item.is_required() else item.get_default(call_default_factory=True)


def read_value(text: str) -> Any:
    """A value as a document writes it."""
    words = {"none": None, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
    return tuple(found) if isinstance(found, list) else found


def test_every_key_of_a_training_configuration_is_listed_with_its_default() -> None:
    text = (ROOT / "docs/training.md").read_text()
    (table,) = re.findall(r"^\| key \| default .*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    listed = {
        name.strip("`"): read_value(row[1].strip("`"))
        for row in rows(table)[2:]
        for name in row[0].split(", ")
    }
    assert listed == dict(keys_of(TrainingConfig))
    assert TrainingConfig.model_fields["aerial"].annotation == EncoderSection | None


def test_every_protocol_is_listed_as_it_counts() -> None:
    listed = {row[0].strip("`"): row[1:] for row in rows((ROOT / "docs/evaluation.md").read_text())}
    for name, protocol in PROTOCOLS.items():
        earth = "WGS 84 geodesic" if protocol.earth == "wgs84" else f"sphere, {protocol.radius_km} km"
        assert listed[name] == [earth, f"`{protocol.comparison}`", protocol.missing, protocol.crops]


def test_the_published_table_is_printed_as_the_registry_has_it() -> None:
    table = SetTable(find_set("Im2GPS"))
    add_published(table)
    page = (ROOT / "docs/published-results.md").read_text()
    assert markdown(table).rstrip("\n") in page
    assert f"{len(published_results())} rows" in page


def test_settings_that_documents_name_exist() -> None:
    known = set(re.findall(r"GEOFIX_\w+", (ROOT / ".env.example").read_text()))
    known |= {f"GEOFIX_JOB_{name.upper()}" for name in JobSettings.model_fields}
    for path in DOCS:
        assert set(re.findall(r"GEOFIX_\w+", path.read_text())) <= known, path.name


def test_commands_that_documents_name_exist() -> None:
    for path in DOCS:
        for code in code_of(path.read_text()):
            for noun, verb in COMMAND.findall(code):
                assert noun in NOUNS or noun in COMMANDS, f"{path.name}: geofix {noun}"
                if noun in NOUNS and verb:
                    app = importlib.import_module(f"geofix.cli.{noun}").app
                    names = {item.name or item.callback.__name__ for item in app.registered_commands}
                    assert verb in names, f"{path.name}: geofix {noun} {verb}"
