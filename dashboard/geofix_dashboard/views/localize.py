"""Localize: give photos, and see where they may have been taken, how sure that is, and why."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from geofix.database.queries.jobs import JobRow
from geofix.errors import GeofixError
from geofix.localize.kinds import POSITIONS
from geofix_dashboard import actions, data, links, place_data, theme, uploads
from geofix_dashboard.guard import guarded
from geofix_dashboard.views import localize_answer, localize_region, model_parts

MOST = 20  # photos of one job
DRAWN = 200  # candidates asked for; the map draws all of them
SEEN = "localize_seen"  # previews of this session by job; never stored elsewhere


def render() -> None:
    """Draw the page."""
    theme.header("Localize", "Where a photo may have been taken, how sure that is, and what speaks for it.")
    sets = place_data.searchable_sets()
    if sets.empty:
        theme.empty(
            "No code set can be searched yet.",
            "Train or register a model, embed its photos, build codes and calibrate them; or run the demo.",
            "geofix demo",
            "geofix codes build --model NAME --code-set CODES --snapshot DIR",
            "geofix codes calibrate --code-set CODES --snapshot DIR",
        )
        return
    job_id = links.get("job")
    left, right = st.columns([5, 9], gap="large")
    with left:
        _ask(sets)
    with right:
        if job_id is None:
            theme.empty(
                "No photo was asked about.",
                "Choose photos on the left and press the button. The same from the command line:",
                "geofix localize PHOTO.jpg --code-set NAME",
            )
        else:
            row = place_data.job(job_id)
            if row is None or row.kind != "localize":
                theme.empty("There is no such answer.", "The job of this address was removed. Ask again.")
            elif not row.is_finished:
                _wait(job_id)
            else:
                uploads.remove(row.specification["photos"])
                _finished(row)


def _ask(sets: pd.DataFrame) -> None:
    """The form: photos, code set, prior region."""
    labels = {row.name: _label(row) for row in sets.itertuples(index=False)}
    name = str(links.choose("set", "Code set", list(labels), show=labels.__getitem__))
    row = sets[sets["name"] == name].iloc[0]
    if row["state"] == "stale":
        reason = model_parts.text(row["stale_reason"], "sources changed since")
        st.caption(f":material/history: Stale: {reason}.")
    if not row["calibrated"]:
        st.caption(
            ":material/info: Not calibrated: answers come without probabilities. "
            f"`geofix codes calibrate --code-set {name} --snapshot DIR` fits them."
        )
    files = st.file_uploader(
        "Photos",
        type=uploads.TYPES,
        accept_multiple_files=True,
        key="localize_files",
        help="Position in EXIF is not read. Photos are removed from the server when the answer is there.",
    )
    st.caption(
        f"At most {MOST} photos of {st.get_option('server.maxUploadSize')} MB. A file in red was not taken: "
        "it is larger, or of another kind."
    )
    photos = [uploads.read(file.name, file.getvalue()) for file in files[:MOST]]
    if len(files) > MOST:
        st.warning(f"The first {MOST} of {len(files)} photos are taken.", icon=":material/filter_list:")
    for photo in photos:
        if not photo.good:
            st.error(str(photo.preview), icon=":material/broken_image:")
    good = [photo for photo in photos if photo.good]
    _previews(good)
    within, region_text = localize_region.choose(name)
    position = _position(bool(row["calibrated"]))
    pressed = st.button(
        f"Find where {'it was' if len(good) == 1 else 'they were'} taken",
        type="primary",
        icon=":material/travel_explore:",
        disabled=not good,
        width="stretch",
        key="localize_go",
    )
    st.caption(
        "Photos are not kept: they leave the disk with the answer. The answer and a hash of each stay."
    )
    if pressed:
        submit(good, name, within, region_text, position)


def _position(calibrated: bool) -> str:
    """What the position of the answer is to be; without probabilities it can only be a centre."""
    if not calibrated:
        return "centre"
    return str(
        links.choose("position", "Position", list(POSITIONS), show=lambda kind: f"{kind}: {POSITIONS[kind]}")
    )


def submit(
    photos: list[uploads.Upload],
    code_set: str,
    within: str | None,
    region_text: str,
    position: str = "centre",
) -> None:
    """Queue one interactive job for the photos and turn to its answer."""
    uploads.sweep()
    paths = uploads.store(photos)
    parameters: dict[str, Any] = {"photos": [str(path) for path in paths], "code_set": code_set, "k": DRAWN}
    if within is not None:
        parameters["within"] = within
    if position != "centre":
        parameters["position"] = position
    try:
        row = actions.localize(parameters)
    except GeofixError as error:
        uploads.remove(paths)
        st.error(str(error), icon=":material/error:")
        return
    seen = st.session_state.setdefault(SEEN, {})
    seen.clear()
    seen[str(row.job_id)] = {
        "names": [photo.name for photo in photos],
        "previews": [photo.preview for photo in photos],
        "region": region_text,
    }
    for key in ("photo", "cell"):
        links.put(key, None)
        links.forget(key)
    links.put("job", str(row.job_id))
    st.rerun()


def _label(row: Any) -> str:
    return f"{row.recipe} · level {row.level} · {row.cells:,} cells · {row.name}"


def _previews(photos: list[uploads.Upload]) -> None:
    for start in range(0, min(len(photos), 6), 3):
        for column, photo in zip(st.columns(3), photos[start : start + 3], strict=False):
            column.image(photo.preview, width="stretch")


@st.fragment(run_every=1.0)
@guarded
def _wait(job_id: str) -> None:
    """Progress of the job, every second, until it has ended."""
    row = place_data.job(job_id)
    if row is None or row.is_finished:
        st.rerun()
        return
    theme.section("Searching", f"Job {job_id[:8]} on the queue {row.queue}")
    total = row.progress_total or 0
    share = min(row.progress_done / total, 1.0) if total else 0.0
    state = {"queued": "Waiting for a worker", "running": "Running"}.get(row.state, row.state)
    st.progress(share, text=f"{state} · {row.progress_message}".rstrip(" ·"))
    if row.state == "queued" and not _served(row.queue):
        theme.empty(
            "No worker takes interactive jobs.",
            "The job waits in the queue. Start a worker; it is taken up within seconds.",
            "geofix worker --queues interactive",
        )
    if actions.may_cancel(job_id) and st.button("Cancel", icon=":material/cancel:", key="localize_cancel"):
        actions.cancel(job_id)
        st.rerun()


def _served(queue: str) -> bool:
    return any(worker["alive"] and queue in worker["queues"] for worker in data.workers())


def _finished(row: JobRow) -> None:
    if row.state != "succeeded" or row.result is None:
        st.error(f"The search ended as {row.state}. {row.error or ''}", icon=":material/error:")
        theme.empty(
            "There is no answer.",
            "The log of the job says more. Mend what it names and ask again.",
            f"geofix jobs logs {str(row.job_id)[:8]}",
        )
        return
    localize_answer.render(row, st.session_state.get(SEEN, {}).get(str(row.job_id), {}))
