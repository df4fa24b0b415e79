"""geofix train-classifier: learn which class of a partition a photo lies in; needs no database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import JsonOption, command, counted, emit, say
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
def train_classifier(
    config: Annotated[
        Path, typer.Argument(help="Training configuration (YAML), as configs/classifier.yaml.")
    ],
    snapshot: SnapshotOption,
    out: OutOption,
    resume: ResumeOption = False,
    changes: ChangesOption = None,
    device: DeviceOption = None,
    json: JsonOption = False,
) -> None:
    """Train a classifier or a mixture on the sphere; Ctrl-C leaves a checkpoint to resume from.

    The model with its partitions is written to OUT/model: register it by `geofix models register OUT`, then
    `geofix evaluate run --localizer classifier`.

    Example: geofix train-classifier configs/classifier.yaml --snapshot snapshots/wuhan --out models/base
    """
    from geofix.training.classify import train_classifier as run
    from geofix.training.classify_config import parse_classifier_config
    from geofix.training.distributed import Team
    from geofix.training.exclusive import only_run_in

    settings = parse_classifier_config(changed(config, changes), str(config))
    with only_run_in(out, Team()):
        result = run(settings, snapshot, out, resume=resume, device=device)
    emit(result, as_json=json, human=lambda: _show(result))


def _show(result: dict[str, Any]) -> None:
    """A few lines for people."""
    classes = ", ".join(f"{name} {count:,}" for name, count in result["classes"].items())
    say(
        f"{result['steps']:,} steps in {result['epochs']} epochs on {counted(result['photos'], 'photo')}; "
        f"classes: {classes}"
    )
    figures = result["val"]
    if "median_km" in figures:
        within = ", ".join(f"{figures[key]:.1f} % within {key} km" for key in ("0.2", "1", "25", "200"))
        say(f"  validation photos: {within}; median {figures['median_km']:.3f} km")
    say_end(result)
