"""Train ground encoder, aerial encoder and prototypes from a snapshot directory: the whole run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from geofix.errors import UsageError
from geofix.log import progress
from geofix.losses.sampled import SampledNegatives
from geofix.models.registry import choose_device
from geofix.settings import get_settings
from geofix.training.batches import plan_epoch
from geofix.training.checkpoint import (
    checkpoint_path,
    clear_unfinished,
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from geofix.training.colour import Jitter
from geofix.training.config import TrainingConfig
from geofix.training.distributed import Team, own_device
from geofix.training.finished import clear_mark, mark_finished
from geofix.training.first_values import set_to_means
from geofix.training.keep import judge, result_of
from geofix.training.loading import decoded, told_if_killed
from geofix.training.run import Run, prepare, readers
from geofix.training.samples import Augmentation, Batch, Pairs
from geofix.training.signals import Stop, stop_on_signals
from geofix.training.state import State, set_rates, update_average
from geofix.training.step import take_step

_STOP = 2  # what a process wishes after a step: 1 a checkpoint, 2 an end


def train(
    config: TrainingConfig,
    snapshot_dir: Path,
    out: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    team: Team | None = None,
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
        team: Processes that train together; see `crew`.

    Returns:
        steps, epochs, val (figures of the kept epoch), terms, checkpoint, model, unreadable files.

    Raises:
        UsageError: `out` holds another run, or the checkpoint is of another configuration.
        BadInputError: Snapshot, weights or checkpoint cannot be used.
        DivergedError: The loss is no longer a number.
        ServiceError: A process that decodes pictures was killed.
    """
    before = torch.get_num_threads()
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        return _train(config, snapshot_dir, out, resume, device, team or Team())
    finally:
        # A worker's next job embeds with as many threads as every other worker does.
        torch.set_num_threads(before)


def _train(
    config: TrainingConfig, snapshot_dir: Path, out: Path, resume: bool, device: str | None, team: Team
) -> dict[str, Any]:
    run = prepare(
        config, snapshot_dir, out, own_device(choose_device(device or get_settings().device), team), team
    )
    path = checkpoint_path(out, team)
    if has_checkpoint(path) and not resume:
        raise UsageError(
            f"{out} holds a run already.", hint="Go on with --resume, or name another directory."
        )
    out.mkdir(parents=True, exist_ok=True)
    clear_unfinished(path)
    if resume:
        read_checkpoint(path, run.state, run.config, run.snapshot.sha256, team)
    clear_mark(out)
    with run.journal, stop_on_signals() as stop, told_if_killed(lambda: run.state.clock.step):
        _epochs(run, stop, path)
    result = result_of(run)
    if team.leads:
        mark_finished(out, result)
    return result


def _epochs(run: Run, stop: Stop, path: Path) -> None:
    clock, config = run.state.clock, run.config
    wrapped = _wrapped(run)
    while clock.epoch < config.epochs:
        _start_table(run)
        _epoch(run, wrapped, stop, path)
        clock.epoch, clock.place = clock.epoch + 1, 0
        if clock.epoch % config.validation.every == 0 or clock.epoch == config.epochs:
            judge(run)
        write_checkpoint(path, run.state, config, run.snapshot.sha256, run.team)


def _start_table(run: Run) -> None:
    """Give the prototypes their first values when the warm-up is over.

    It warms up what ground and aerial have in common with the prototypes: in separate halves nothing, unless
    the prototypes' half has tiles as its second task.
    """
    clock, settings = run.state.clock, run.config.prototypes
    common = run.index is not None and (not run.config.separate or run.config.loss.auxiliary > 0)
    warm = settings.warmup_epochs if common else 0
    if run.state.table is None or clock.table_started or clock.epoch < min(warm, run.config.epochs - 1):
        return
    if settings.start == "means":
        # Each process sets its own rows: as one encoder would, and as after a resume.
        run.team.share_buffers(run.state.networks["ground"])
        set_to_means(run.state, run.photos, seed=run.config.seed, threads=readers(run.config))
    clock.table_started = True


def _epoch(run: Run, wrapped: State, stop: Stop, path: Path) -> None:
    """The steps that are left of the epoch under way."""
    state, clock, config = run.state, run.state.clock, run.config
    sampled = _sampled(run)
    total, saved, began, seen = run.steps_per_epoch * config.epochs, time.monotonic(), time.monotonic(), 0
    state.train()
    with progress(f"epoch {clock.epoch + 1} of {config.epochs}", run.steps_per_epoch, "steps") as advance:
        if clock.place:
            advance(clock.place)
        for batch in _batches(run):
            share = set_rates(state, config.optimiser, clock.step, total)
            if sampled is not None:
                sampled.draws = clock.step  # a resumed run draws what it would have drawn
            outcome = take_step(wrapped, batch, config, sampled, run.team)
            clock.place, clock.step = clock.place + 1, clock.step + 1
            update_average(state, config.average)
            run.unreadable.update(dict(batch.unreadable))
            seen += len(batch)
            speed = seen / (time.monotonic() - began)
            if run.team.leads:
                run.journal.step(clock.step, outcome, share, speed)
            together = run.team.size == 1
            try:
                advance(1, run.journal.line(outcome, speed))
                due = time.monotonic() - saved > 60 * config.checkpoint_minutes
                wish = run.team.highest(_STOP if stop.asked else int(due))
                together = True
                if wish == _STOP:  # of any process; a signal that came since then waits for the next step
                    stop.asked = True
                    stop.check()
            except BaseException as error:
                # Every step is whole here, so whatever wants the run to end may have it, and go on later;
                # unless somebody else has gone on with it already, whose checkpoint must stay, or this is
                # one of several processes and the others do not end at this step.
                if getattr(error, "leaves_nothing", False) or not together:
                    raise
                write_checkpoint(path, state, config, run.snapshot.sha256, run.team)
                raise
            if wish:
                write_checkpoint(path, state, config, run.snapshot.sha256, run.team)
                saved = time.monotonic()


def _batches(run: Run) -> Iterator[Batch]:
    """The batches of the epoch under way, from where it stands, decoded ahead."""
    config, clock, networks = run.config, run.state.clock, run.state.networks
    section = config.batch
    plan = plan_epoch(
        run.photos,
        batch=section.photos,
        seed=config.seed,
        epoch=clock.epoch,
        neighbourhood=section.neighbourhood,
        neighbourhood_km=section.neighbourhood_km,
        balance=section.balance,
        cell_level=config.prototypes.level,
    )
    plan = plan[:, run.team.part(section.photos)]
    amount = section.jitter
    colours = Jitter(amount, amount, amount, amount / 5) if amount else None
    pairs = Pairs(
        run.photos,
        plan,
        networks["ground"].transform,
        networks["aerial"].transform if "aerial" in networks else None,
        run.index,
        seed=config.seed + 1_000_003 * run.team.rank,
        epoch=clock.epoch,
        side_m=config.tiles.side_m,
        augmentation=Augmentation(config.tiles.turn, config.tiles.shift_m, section.crop, colours),
    )
    pin = run.state.device.type == "cuda"
    return decoded(pairs, clock.place, workers=config.workers, pin=pin)


def _sampled(run: Run) -> SampledNegatives | None:
    """How far negatives are drawn, for tables above the size that says so."""
    settings, table = run.config.prototypes, run.state.table
    if table is None or len(table) <= settings.sample_above:
        return None
    return SampledNegatives(
        settings.sampled,
        near_m=1000 * settings.near_km,
        above=settings.sample_above,
        seed=run.config.seed,
    )


def _wrapped(run: Run) -> State:
    """The same state whose networks run compiled and average their gradients; the weights are shared."""
    state = run.state
    networks: dict[str, Any] = dict(state.networks)
    if run.config.compile:
        networks = {role: torch.compile(network) for role, network in networks.items()}
    networks = {role: run.team.wrap(network) for role, network in networks.items()}
    return replace(state, networks=networks)
