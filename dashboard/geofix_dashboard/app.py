"""The dashboard's entry: `geofix dashboard` runs this file with Streamlit."""

from __future__ import annotations

import streamlit as st

from geofix_dashboard import access, data, theme
from geofix_dashboard.guard import guarded
from geofix_dashboard.views import (
    accuracy,
    coverage,
    jobs,
    localize,
    models,
    overview,
    sign_in,
    sources,
    space,
    sql,
)


def main() -> None:
    """Lay out the pages and run the one that is asked for."""
    st.set_page_config(page_title="geofix", page_icon=str(theme.ICON), layout="wide")
    theme.install()
    st.logo(str(theme.LOGO), size="large")
    visitor = access.visitor()
    page = st.navigation(
        {
            "Look": [
                st.Page(
                    overview.render,
                    title="Overview",
                    icon=":material/dashboard:",
                    url_path="overview",
                    default=True,
                ),
                st.Page(
                    localize.render, title="Localize", icon=":material/travel_explore:", url_path="localize"
                ),
                st.Page(accuracy.render, title="Accuracy", icon=":material/target:", url_path="accuracy"),
                st.Page(coverage.render, title="Coverage", icon=":material/grid_on:", url_path="coverage"),
                st.Page(
                    space.render, title="Embedding space", icon=":material/bubble_chart:", url_path="space"
                ),
            ],
            "Work": [
                st.Page(jobs.render, title="Jobs", icon=":material/sync:", url_path="jobs"),
                st.Page(models.render, title="Models", icon=":material/neurology:", url_path="models"),
            ],
            "Ask": [
                st.Page(sql.render, title="SQL", icon=":material/terminal:", url_path="sql"),
                st.Page(sources.render, title="Data", icon=":material/database:", url_path="data"),
            ],
        },
        position="hidden" if visitor.role is None else "sidebar",
    )
    if visitor.role is None:
        sign_in.render(visitor)
        return
    with st.sidebar:
        sign_in.who(visitor)
        st.caption(f"Reads as the reader role. Figures are at most {data.TTL_S} s old; jobs are live.")
        if st.button("Refresh", icon=":material/refresh:", width="stretch"):
            data.forget()
    guarded(page.run)()


if __name__ == "__main__":
    main()
