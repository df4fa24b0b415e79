"""geofix run: a pipeline file from photos to answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, say, table

if TYPE_CHECKING:
    from geofix.pipeline.run import StageResult

app = typer.Typer(no_args_is_help=True)


@app.command()
@command
def run(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline file (YAML).")],
    force: Annotated[bool, typer.Option("--force", help="Run every stage again.")] = False,
    var: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for ${NAME} in the file; repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a pipeline; a stage is skipped while its inputs and what it made are as they were.

    Example: geofix run examples/wuhan.yaml
    """
    from geofix.cli.ingest import mapping
    from geofix.pipeline.run import run_pipeline
    from geofix.settings import get_settings

    results = run_pipeline(pipeline, variables=mapping(var, commas=False), force=force)
    emit(
        [document(r) for r in results],
        as_json=json,
        human=lambda: show_results(results),
    )
    say(f"Reports are in {get_settings().home_dir / 'runs'}.")


def document(result: StageResult) -> dict[str, Any]:
    """A stage and what it made; `embed` counts what it skipped under result_skipped."""
    own = {"stage": result.stage, "skipped": result.skipped, "seconds": result.seconds}
    made = {f"result_{key}" if key in own else key: value for key, value in result.result.items()}
    return own | made


def show_results(results: list[StageResult]) -> None:
    """Print the stages, and the tables that they made."""
    rows = [
        (r.stage, "unchanged" if r.skipped else "done", round(r.seconds, 1), _short(r.result))
        for r in results
    ]
    table(("stage", "state", "seconds", "result"), rows)
    for result in results:
        if result.stage.endswith("-table"):
            show_table(result.result["rows"], result.stage)
            continue
        for found in (result.result.get("photos"), result.result.get("datasets")):
            if isinstance(found, list) and found:
                columns = list(found[0])
                table(columns, [[row.get(column) for column in columns] for row in found], title=result.stage)


def show_table(rows: list[dict[str, Any]], title: str) -> None:
    """Print the table of evaluations: percent of photos within each radius."""
    from geofix.pipeline.reports import in_order

    columns = in_order(list(rows[0]))
    table(columns, [[row[column] for column in columns] for row in rows], title=f"{title}: percent within")


def _short(result: dict[str, Any]) -> str:
    """The plain values of a result on one line."""
    shown = []
    for key, value in result.items():
        if isinstance(value, float):
            shown.append(f"{key} {value:,.3g}")
        elif isinstance(value, int):
            shown.append(f"{key} {value:,}")
        elif isinstance(value, str) and key not in ("rejects", "sha256", "directory"):
            shown.append(f"{key} {value}")
    return ", ".join(shown)[:110]
