"""Running one page, and reading what a person reads there."""

from __future__ import annotations

import html
import json
import re
from typing import Any

from streamlit.testing.v1 import AppTest

SENT: dict[str, bytes] = {}  # what maps sent beside the page, by its address


def page(name: str, **parameters: str) -> AppTest:
    script = f"from geofix_dashboard.views import {name}\n{name}.render()\n"
    test = AppTest.from_string(script, default_timeout=30)
    for key, value in parameters.items():
        test.query_params[key] = value
    return test.run()


def run_sql(statement: str) -> AppTest:
    test = well(page("sql"))
    test.text_area(key="sql_text").set_value(statement)
    return well(test.button[0].click().run())


def text_of(test: AppTest) -> str:
    """All that is written on the page, tags removed."""
    parts = [item.proto.body for item in test.get("html")]
    parts += [item.value for kind in (test.markdown, test.caption, test.error, test.title) for item in kind]
    return html.unescape(re.sub(r"<[^>]+>", " ", " ".join(parts)))


def metric(test: AppTest, label: str) -> str:
    return next(item.value for item in test.metric if item.label == label)


def map_data(test: AppTest, layer: str = "areas") -> Any:
    """What a layer of the first map draws."""
    deck = json.loads(test.get("deck_gl_json_chart")[0].proto.json)
    data = next(item for item in deck["layers"] if item["id"] == layer)["data"]
    return json.loads(SENT[data]) if isinstance(data, str) else data


def well(test: AppTest) -> AppTest:
    assert not test.exception, [item.value for item in test.exception]
    return test
