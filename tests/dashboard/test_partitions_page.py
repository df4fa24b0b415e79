"""Partitions on the data page: their figures are those of SQL, and their classes are on the map."""

from __future__ import annotations

from page_tests import map_data, page, text_of, well

from geofix.database.engine import connect
from geofix.database.queries import dashboard_partitions, partitions
from geofix_dashboard import maps, theme
from geofix_dashboard.views import partitions as view

NAMES = "SELECT name FROM partition ORDER BY name"
FIGURES = "SELECT count(*), sum(photos), min(photos), max(photos) FROM partition_map WHERE partition = %s"


def stored() -> list[str]:
    with connect("reader") as conn:
        return [row[0] for row in conn.execute(NAMES)]


def test_the_table_holds_every_partition_with_the_figures_of_sql(filled):
    test = well(page("sources", part="partitions"))
    shown = test.dataframe[0].value.set_index("name")
    assert len(stored()) == 2 and sorted(shown.index) == stored()
    with connect("reader") as conn:
        for name in stored():
            figures = tuple(int(value) for value in conn.execute(FIGURES, (name,)).fetchone())
            assert tuple(shown.loc[name, ["classes", "photos", "least", "most"]]) == figures
    assert set(shown["limits"]) == {"more than 2, at most 60", "more than 2, at most 15"}
    assert all("° E" in text and "° N" in text for text in shown["extent"])


def test_the_map_shows_the_classes_of_the_partition_in_the_address(filled):
    name = stored()[0]
    test = well(page("sources", part="partitions", partition=name))
    with connect("reader") as conn:
        classes, photos, least, most = (int(v) for v in conn.execute(FIGURES, (name,)).fetchone())
        rows = dashboard_partitions.partition_classes(conn, name, 0.0)
    features = [feature["properties"] for feature in map_data(test)["features"]]
    assert len(features) == classes == len(rows)
    assert rows["photos"].is_monotonic_decreasing and f"photos: {most:,}" in features[0]["tip"]
    assert features[0]["fill"] == theme.colour(1.0) and features[-1]["fill"] == theme.colour(0.0)
    text = text_of(test)
    assert f"{classes:,} classes drawn · n = {photos:,} photos" in text and "Photos per class" in text
    assert "walks" in text and f"geofix partitions export {name}" in text
    drawn = "".join(item.proto.body for item in test.get("html"))
    assert f"<span>{least:,}</span>" in drawn and f"<span>{most:,}</span>" in drawn


def test_another_partition_is_chosen(filled):
    test = well(page("sources", part="partitions"))
    other = next(name for name in stored() if name != test.selectbox(key="url_partition").value)
    well(test.selectbox(key="url_partition").set_value(other).run())
    assert f"geofix partitions export {other}" in text_of(test)
    assert test.query_params.get("partition") in (other, [other])


def test_only_the_fullest_classes_leave_the_server(filled):
    name = stored()[-1]
    with connect("reader") as conn:
        everything = dashboard_partitions.partition_classes(conn, name, 0.0)
        few = dashboard_partitions.partition_classes(conn, name, 0.0, limit=3)
        own = sorted((row["photos"] for row in partitions.map_rows(conn, name)), reverse=True)
    assert list(everything["photos"]) == own and list(few["photos"]) == own[:3]
    assert int(few["classes"].iloc[0]) == len(everything) > 3


def test_no_partition_names_the_command(blank):
    test = well(page("sources", part="partitions"))
    assert "No partition is stored." in text_of(test)
    assert "geofix partitions build NAME --rule adaptive" in text_of(test)


def test_limits_in_words():
    assert view.limits({"tau_min": 50, "tau_max": 5000}) == "more than 50, at most 5,000"
    assert view.limits({"level": 4, "tau_min": 0}) == "more than 0" and view.limits({}) == "–"


def test_classes_of_one_size_have_one_colour():
    row = type("Row", (), {"photos": 90})()
    assert view.fill(90, 90)(row) == theme.colour(1.0)


def test_too_many_classes_for_a_map_are_drawn_by_cell(filled, monkeypatch):
    name = stored()[0]
    with connect("reader") as conn:
        classes, photos, *_ = (int(value) for value in conn.execute(FIGURES, (name,)).fetchone())
        cells = dashboard_partitions.partition_cells(conn, name, limit=3)
        fine = dashboard_partitions.partition_cells(conn, name)
    assert 0 < len(cells) <= 3 < len(fine) and cells["level"].iloc[0] < fine["level"].iloc[0]
    for rows in (cells, fine):
        assert (rows["classes"].sum(), rows["photos"].sum()) == (classes, photos)
        assert rows["photos"].is_monotonic_decreasing and rows["shape"].notna().all()
    monkeypatch.setattr(maps, "MAX_FEATURES", 3)
    test = well(page("sources", part="partitions", partition=name))
    text = text_of(test)
    assert f"{len(cells)} cells hold the {classes:,} classes" in text
    assert f"S2 cells of level {cells['level'].iloc[0]}" in text
