"""geofix train: learn encoders and prototypes from a snapshot directory; needs no database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, say

app = typer.Typer(no_args_is_help=False)


@app.command()
@command
def train(
    config: Annotated[Path, typer.Argument(help="Training configuration (YAML), as in configs/.")],
    snapshot: Annotated[Path, typer.Option(help="Snapshot directory.")],
    out: Annotated[Path, typer.Option(help="Directory of model, checkpoint and curves.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the directory.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a key of the configuration: ground.weights=FILE; repeatable."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N; default: the setting.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train ground encoder, aerial encoder and prototypes; Ctrl-C leaves a checkpoint to resume from.

    The model is written to OUT/model: register it by `geofix models register OUT`. Curves for TensorBoard
    are in OUT/tensorboard, one line per epoch in OUT/epochs.jsonl.

    Example: geofix train configs/cpu.yaml --snapshot snapshots/wuhan --out models/wuhan
    """
    import yaml

    from geofix.cli.ingest import mapping
    from geofix.training.config import load_raw, parse_config, with_changes
    from geofix.training.distributed import crew
    from geofix.training.exclusive import only_run_in
    from geofix.training.loop import train as run

    given = mapping(changes, commas=False) or {}
    replaced = {key: yaml.safe_load(value) for key, value in given.items()}
    settings = parse_config(with_changes(load_raw(config), replaced), str(config))
    with crew() as team, only_run_in(out, team):
        result = run(settings, snapshot, out, resume=resume, device=device, team=team)
    if team.leads:
        emit(result, as_json=json, human=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    """A few lines for people."""
    say(
        f"{result['steps']:,} steps in {result['epochs']} epochs on {result['photos']:,} photos, "
        f"{result['prototypes']:,} prototypes; terms: {', '.join(result['terms'])}"
    )
    figures = result["val"]
    for name in ("cellcode", "prototype_only", "aerial_only"):
        if f"{name}.200" in figures:
            say(
                f"  {name:<15} {figures[f'{name}.50']:5.1f} % within 50 m, {figures[f'{name}.100']:5.1f} % "
                f"within 100 m, {figures[f'{name}.200']:5.1f} % within 200 m of validation photos"
            )
    if result["unreadable"]:
        path, reason = result["unreadable"][0]
        say(f"  {len(result['unreadable'])} files could not be read, the first: {path}: {reason}")
    say(f"model of epoch {result['kept_epoch']} in {result['model']}")
