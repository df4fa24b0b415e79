"""What a run works with: snapshot, photos, imagery, first state, and what is validated."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geofix.errors import UsageError
from geofix.log import get_logger
from geofix.settings import get_settings
from geofix.snapshots.reader import Snapshot, load_snapshot
from geofix.training.config import TrainingConfig
from geofix.training.distributed import Team
from geofix.training.first_values import prototype_cells
from geofix.training.journal import Journal
from geofix.training.networks import build_networks
from geofix.training.places import AerialIndex, TrainingPhotos
from geofix.training.state import State, new_state
from geofix.training.validate import Validation, prepare_validation

_log = get_logger(__name__)


@dataclass
class Run:
    """What a run works with and does not change.

    Attributes:
        config: As asked for, less what the snapshot cannot give.
        snapshot: Where photos and imagery come from.
        out: Directory of model, checkpoint and curves.
        photos: Training photos.
        index: Imagery, None without.
        state: What is trained.
        chosen: Queries and gallery of the validation.
        journal: Curves.
        team: Processes that train together.
        counts: Photos per prototype.
        unreadable: Files that could not be read, with the reason.
    """

    config: TrainingConfig
    snapshot: Snapshot
    out: Path
    photos: TrainingPhotos
    index: AerialIndex | None
    state: State
    chosen: Validation | None
    journal: Journal
    team: Team
    counts: NDArray[np.int64] | None
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(1, len(self.photos) // self.config.batch.photos)


def prepare(config: TrainingConfig, snapshot_dir: Path, out: Path, device: torch.device, team: Team) -> Run:
    """Read the snapshot, leave out what it cannot give, and make the first state."""
    snapshot = load_snapshot(snapshot_dir)
    torch.manual_seed(config.seed)
    photos = _share(TrainingPhotos.from_snapshot(snapshot, ["train"]), config)
    index = AerialIndex.from_snapshot(snapshot) if config.loss.ground_aerial else None
    if config.loss.ground_aerial and index is None:
        if not config.loss.ground_prototype:
            raise UsageError(
                f"{snapshot_dir} has no aerial imagery, and ground_prototype is 0: nothing to train on.",
                hint="Build the snapshot with imagery (`geofix snapshot build --aerial`).",
            )
        _log.warning("the snapshot has no aerial imagery: prototypes alone are trained")
        without = {"ground_aerial": 0.0, "aerial_prototype": 0.0, "auxiliary": 0.0}
        loss = config.loss.model_copy(update=without)
        config = config.model_copy(update={"loss": loss, "separate": False})
    if index is not None and (odd := index.side_m[abs(index.side_m - config.tiles.side_m) > 0.5]).size:
        _log.warning(
            "tiles are trained on at another size than codes will be made from",
            tiles_side_m=config.tiles.side_m,
            ingested_side_m=sorted({round(float(side), 1) for side in odd}),
        )
    team.part(config.batch.photos)
    cells = counts = None
    if config.loss.ground_prototype:
        cells, counts = prototype_cells(photos, config.prototypes.level)
    state = new_state(config, build_networks(config, aerial=index is not None), cells, device, team)
    chosen = prepare_validation(config, snapshot, index, state, threads=readers(config))
    return Run(config, snapshot, out, photos, index, state, chosen, Journal(out), team, counts)


def _share(photos: TrainingPhotos, config: TrainingConfig) -> TrainingPhotos:
    """The share of the training photos that is used."""
    if config.share == 1.0:
        return photos
    count = max(1, round(config.share * len(photos)))
    rng = np.random.default_rng([config.seed, 0x7368617265])
    return photos.take(np.sort(rng.permutation(len(photos))[:count]))


def readers(config: TrainingConfig) -> int:
    """Threads that read pictures between the epochs."""
    return config.workers or get_settings().workers or os.cpu_count() or 1
