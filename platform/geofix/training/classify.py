"""Train a classifier of positions from a snapshot directory: the whole run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geofix.errors import UsageError
from geofix.log import progress
from geofix.models.registry import choose_device
from geofix.settings import get_settings
from geofix.training.batches import plan_epoch
from geofix.training.checkpoint import clear_unfinished
from geofix.training.classify_checkpoint import NAME, read_checkpoint, write_checkpoint
from geofix.training.classify_config import ClassifierConfig
from geofix.training.classify_keep import judge, result_of
from geofix.training.classify_run import ClassifierRun, prepare_run
from geofix.training.classify_step import classify_step, set_rates
from geofix.training.colour import Jitter
from geofix.training.finished import clear_mark, mark_finished
from geofix.training.loading import decoded, told_if_killed
from geofix.training.planes import pairs_with
from geofix.training.samples import Augmentation, Batch
from geofix.training.signals import Stop, stop_on_signals


def train_classifier(
    config: ClassifierConfig,
    snapshot_dir: Path,
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Train, and write a model directory `OUT/model` that can be registered.

    Interrupted by SIGINT, SIGTERM or whatever the progress sinks raise, it leaves a checkpoint behind from
    which `resume` goes on, to the same weights as without the interruption (on a CPU with as many threads).

    Args:
        config: The run.
        snapshot_dir: A snapshot; no database is asked.
        out: Directory of model, checkpoint and curves.
        resume: Go on from the checkpoint in `out`.
        device: Instead of the device of the settings.

    Returns:
        kind, steps, epochs, val (figures of the kept epoch), classes and photos outside per partition, model.

    Raises:
        UsageError: `out` holds another run, the checkpoint is of another configuration, or the classes do not
            fit into memory.
        BadInputError: Snapshot, weights or checkpoint cannot be used.
        DivergedError: The loss is no longer a number.
        ServiceError: A process that decodes pictures was killed.
    """
    before = torch.get_num_threads()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        return _train(config, snapshot_dir, out, resume, device)
    finally:
        torch.set_num_threads(before)


def _train(
    config: ClassifierConfig, snapshot_dir: Path, out: Path, resume: bool, device: str | None
) -> dict[str, Any]:
    path = out / NAME
    if path.exists() and not resume:
        raise UsageError(
            f"{out} holds a run already.", hint="Go on with --resume, or name another directory."
        )
    run = prepare_run(config, snapshot_dir, out, choose_device(device or get_settings().device))
    out.mkdir(parents=True, exist_ok=True)
    clear_unfinished(path)
    if resume:
        read_checkpoint(run)
    clear_mark(out)
    with run.journal, stop_on_signals() as stop, told_if_killed(lambda: run.clock.step):
        while run.clock.epoch < config.epochs:
            _epoch(run, stop)
            run.clock.epoch, run.clock.place = run.clock.epoch + 1, 0
            if run.clock.epoch % config.validation.every == 0 or run.clock.epoch == config.epochs:
                judge(run)
            write_checkpoint(run)
    result = result_of(run)
    mark_finished(out, result)
    return result


def _epoch(run: ClassifierRun, stop: Stop) -> None:
    """The steps that are left of the epoch under way."""
    clock, config = run.clock, run.config
    saved = began = time.monotonic()
    seen = 0
    run.network.train()
    with progress(f"epoch {clock.epoch + 1} of {config.epochs}", run.steps_per_epoch, "steps") as advance:
        if clock.place:
            advance(clock.place)
        for batch in _batches(run):
            share = set_rates(run)
            outcome = classify_step(run, batch)
            clock.place, clock.step = clock.place + 1, clock.step + 1
            run.unreadable.update(dict(batch.unreadable))
            seen += len(batch)
            speed = seen / (time.monotonic() - began)
            run.journal.step(clock.step, outcome, share, speed)
            try:
                advance(1, f"loss {outcome.loss:.3f} {speed:.0f} photos/s")
                stop.check()
            except BaseException as error:
                # Every step is whole here, so whatever wants the run to end may have it, and go on later;
                # unless somebody else has gone on with it already, whose checkpoint must stay.
                if not getattr(error, "leaves_nothing", False):
                    write_checkpoint(run)
                raise
            if time.monotonic() - saved > 60 * config.checkpoint_minutes:
                write_checkpoint(run)
                saved = time.monotonic()


def _batches(run: ClassifierRun) -> Iterator[Batch]:
    """The batches of the epoch under way, from where it stands, decoded ahead."""
    section, clock = run.config.batch, run.clock
    plan = plan_epoch(
        run.photos,
        batch=section.photos,
        seed=run.config.seed,
        epoch=clock.epoch,
        neighbourhood=0.0,
        balance=section.balance,
    )
    amount = section.jitter
    colours = Jitter(amount, amount, amount, amount / 5) if amount else None
    pairs = pairs_with(
        run.planes,
        run.photos,
        plan,
        run.network.encoder.transform,
        seed=run.config.seed,
        epoch=clock.epoch,
        augmentation=Augmentation(rotate=False, shift_m=0.0, scale=section.crop, jitter=colours),
    )
    return decoded(pairs, clock.place, workers=run.config.workers, pin=run.device.type == "cuda")
