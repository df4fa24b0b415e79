"""Every localizer that is offered is explained in docs/localizers.md, under the same five heads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geofix.localizers.code_set import NAMES
from geofix.localizers.fit import FITTED

PAGE = (Path(__file__).resolve().parents[2] / "docs/localizers.md").read_text()
HEADS = ["Idea", "Formula", "Source", "Our choices", "Result"]
HEAD = re.compile(rf"^\*({'|'.join(HEADS)})\.\*", re.MULTILINE)
OFFERED = sorted({*FITTED, *NAMES.values()})
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXPLAINED = {title: text for title, text in SECTIONS.items() if HEAD.search(text)}


@pytest.mark.parametrize("title", EXPLAINED)
def test_a_section_has_all_heads_in_their_order(title: str) -> None:
    assert HEAD.findall(EXPLAINED[title]) == HEADS


@pytest.mark.parametrize("name", OFFERED)
def test_a_localizer_is_named_in_a_section_and_in_the_table(name: str) -> None:
    assert [title for title, text in EXPLAINED.items() if f"`{name}`" in text]
    (table,) = re.findall(r"^\| `--localizer` .*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    assert f"`{name}`" in table


def test_both_modes_say_what_the_distance_is() -> None:
    text = SECTIONS["[L]kNN density"]
    assert "`knn_density`" in text and "`knn_density_compat`" in text
    assert re.search(r"\*\*d is the Euclidean distance .*not its square, in both modes\*\*", text)
