"""geofix train: learn encoders and prototypes from a snapshot directory; needs no database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, emit, say
from geofix.cli.train_options import (
    ChangesOption,
    DeviceOption,
    OutOption,
    ResumeOption,
    SnapshotOption,
    changed,
    say_end,
)

app = typer.Typer(no_args_is_help=False)


@app.command()
@command
def train(
    config: Annotated[Path, typer.Argument(help="Training configuration (YAML), as in configs/.")],
    snapshot: SnapshotOption,
    out: OutOption,
    resume: ResumeOption = False,
    changes: ChangesOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Train ground encoder, aerial encoder and prototypes; Ctrl-C leaves a checkpoint to resume from.

    The model is written to OUT/model: register it by `geofix models register OUT`. Curves for TensorBoard
    are in OUT/tensorboard, one line per epoch in OUT/epochs.jsonl.

    Example: geofix train configs/cpu.yaml --snapshot snapshots/wuhan --out models/wuhan
    """
    from geofix.training.config import parse_config
    from geofix.training.distributed import crew
    from geofix.training.exclusive import only_run_in
    from geofix.training.loop import train as run

    settings = parse_config(changed(config, changes), str(config))
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
    say_end(result)
