"""The stages that train: learn from the pipeline's snapshot, then register what was learned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries.models import ModelRow
from geofix.errors import UsageError
from geofix.log import get_logger
from geofix.models.manifest import MANIFEST, WEIGHTS, read_manifest
from geofix.pipeline.context import Context, training_dir
from geofix.pipeline.file import Train, TrainClassifier
from geofix.pipeline.reports import files
from geofix.settings import get_settings
from geofix.training.budget import within

_log = get_logger(__name__)


def train(context: Context, stage: Train) -> dict[str, Any]:
    """Train, or go on with a run of the same configuration that was interrupted, and register the model."""
    from geofix.training.config import parse_config
    from geofix.training.loop import train as begin

    return _train(context, stage, parse_config, begin)


def train_classifier(context: Context, stage: TrainClassifier) -> dict[str, Any]:
    """As `train`, for what `geofix train-classifier` trains."""
    from geofix.training.classify import train_classifier as begin
    from geofix.training.classify_config import parse_classifier_config

    return _train(context, stage, parse_classifier_config, begin)


def _train(
    context: Context,
    stage: Train | TrainClassifier,
    parse: Callable[[Any, str], Any],
    begin: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    from geofix.training.config import load_raw, with_changes

    asked = parse(with_changes(load_raw(stage.config), stage.changes), str(stage.config))
    out = training_dir(context.home, context.pipeline.name, one_part(stage.name))
    # The run takes minutes to days: no transaction stays open meanwhile.
    context.conn.commit()
    config = within(stage.budget, asked, context.snapshot_dir, out, begin)
    result = learn(begin, config, context.snapshot_dir, out)
    directory = kept_model(Path(result["model"]), stage.name, context.home)
    row = register_trained(context.conn, directory, stage.name)
    outputs = [["model", stage.name], *files(directory / MANIFEST, directory / WEIGHTS)]
    seen = result["steps"] * config.batch.photos
    return {
        **result,
        "photos_seen": seen,
        "model": row.name,
        "sha256": row.weights_sha256,
        "outputs": outputs,
    }


def learn(begin: Callable[..., dict[str, Any]], config: Any, snapshot_dir: Path, out: Path) -> dict[str, Any]:
    """Train into a directory, going on from a checkpoint of the same run that can be read."""
    from geofix.training.checkpoint import NAME, DamagedCheckpointError, OtherRunError

    try:
        return begin(config, snapshot_dir, out, resume=(out / NAME).exists())
    except (OtherRunError, DamagedCheckpointError) as error:
        _log.warning("an earlier run cannot be taken up and is replaced", run=str(out), reason=error.message)
        shutil.rmtree(out)
        return begin(config, snapshot_dir, out)


def kept_model(made: Path, name: str, home: Path | None = None) -> Path:
    """Copy a trained model to a directory of its own below a home (GEOFIX_HOME), named by its weights.

    A later training of the same name writes elsewhere, so what is registered never changes under its users.
    """
    sha256 = read_manifest(made).weights_sha256
    directory = (home or get_settings().home_dir) / "models" / f"{one_part(name)}-{sha256[:12]}"
    if not (directory / MANIFEST).is_file():
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = directory.with_name(f".{directory.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(made, beside)
        beside.rename(directory)
    return directory


def one_part(name: str) -> str:
    """A model's name as one part of a path.

    Raises:
        UsageError: It would lead elsewhere.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise UsageError(f"A model cannot be named {name!r}.", hint="Use letters, digits, - and _.")
    return name


def register_trained(conn: Connection, directory: Path, name: str) -> ModelRow:
    """Register under a name; another model of that name steps aside and keeps all that was made with it."""
    from geofix.codes.register import register_model

    sha256 = read_manifest(directory).weights_sha256
    aside = model_queries.step_aside(conn, name, sha256)
    if aside is not None:
        _log.warning("the model of this name has other weights and is renamed", model=name, now=aside)
    return register_model(conn, directory, name)
