"""Options that all commands that train have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geofix.cli.output import say

SnapshotOption = Annotated[Path, typer.Option(help="Snapshot directory.")]
OutOption = Annotated[Path, typer.Option(help="Directory of model, checkpoint and curves.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the directory.")]
ChangesOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a key of the configuration: batch.photos=64; repeatable."),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; default: the setting.")]


def changed(config: Path, changes: list[str] | None) -> Any:
    """What a configuration file says with the options `--set KEY=VALUE` applied, unchecked.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no YAML, or a key lies below one that is no section.
        UsageError: An option lacks its equals sign.
    """
    import yaml

    from geofix.cli.ingest import mapping
    from geofix.training.config import load_raw, with_changes

    given = mapping(changes, commas=False) or {}
    return with_changes(load_raw(config), {key: yaml.safe_load(value) for key, value in given.items()})


def say_end(result: dict[str, Any]) -> None:
    """Files that could not be read, and where the model is."""
    if result["unreadable"]:
        path, reason = result["unreadable"][0]
        say(f"  {len(result['unreadable'])} files could not be read, the first: {path}: {reason}")
    say(f"model of epoch {result['kept_epoch']} in {result['model']}")
