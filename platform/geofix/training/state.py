"""Everything that changes while a model is trained, and nothing else: what a checkpoint holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geofix.models.encoder import Encoder
from geofix.models.groups import parameter_groups
from geofix.models.prototypes import PrototypeTable
from geofix.models.row_adam import RowAdam
from geofix.training.config import OptimiserSection, TrainingConfig
from geofix.training.distributed import Team
from geofix.training.halves import Partner, has_proxies, prototype_length

_PROXY_SEED = 104_729
"""Between the seeds of the two tables' random directions."""


@dataclass
class Clock:
    """Where a run stands.

    Attributes:
        epoch: Epochs finished.
        place: Steps finished of the epoch under way.
        step: Steps finished in all.
        table_started: The prototypes have their first values and are being trained.
        best: Best validation figure so far and the epoch that reached it.
        history: One record per validated epoch.
    """

    epoch: int = 0
    place: int = 0
    step: int = 0
    table_started: bool = False
    best: tuple[float, int] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class State:
    """Networks, prototypes, their optimisers, running means, and the clock.

    `proxies` are a second table, of separate halves alone: vectors of the same cells in the tiles' half,
    at which photos and tiles learn to meet; the model does not keep them (decision 0022).
    """

    networks: dict[str, Encoder]
    table: PrototypeTable | None
    optimiser: torch.optim.AdamW
    rows: RowAdam | None
    average: dict[str, dict[str, Tensor]] | None
    clock: Clock
    proxies: PrototypeTable | None = None
    proxy_rows: RowAdam | None = None

    @property
    def tables(self) -> dict[Partner, tuple[PrototypeTable, RowAdam]]:
        """Each table with what moves it, by the half that is compared with it; prototypes come first."""
        found: dict[Partner, tuple[PrototypeTable, RowAdam]] = {}
        if self.table is not None and self.rows is not None:
            found["prototypes"] = self.table, self.rows
        if self.proxies is not None and self.proxy_rows is not None:
            found["tiles"] = self.proxies, self.proxy_rows
        return found

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.networks["ground"].device

    def train(self) -> None:
        """Put the networks in training mode; frozen parts stay as they are."""
        for network in self.networks.values():
            network.train()

    def eval(self) -> None:
        """Put the networks in evaluation mode."""
        for network in self.networks.values():
            network.eval()


def new_state(
    config: TrainingConfig,
    networks: dict[str, Encoder],
    cells: NDArray[np.int64] | None,
    device: torch.device,
    team: Team,
) -> State:
    """The state before the first step.

    Args:
        config: The run.
        networks: Encoders by role.
        cells: Cells that get a prototype, sorted; None: no prototypes are trained.
        device: Where to train.
        team: Whose ranks share the rows of the table.
    """
    for network in networks.values():
        network.to(device)
    groups = []
    for role, network in networks.items():
        found = parameter_groups(
            network, config.optimiser.trunk_lr, config.optimiser.head_lr, config.optimiser.weight_decay
        )
        groups += [{**group, "name": f"{role}.{group['name']}"} for group in found]
    for group in groups:
        group["highest_lr"] = group["lr"]

    def make_table(seed: int) -> tuple[PrototypeTable, RowAdam] | tuple[None, None]:
        if cells is None:
            return None, None
        shard = team.rank, team.size
        made = PrototypeTable(cells, prototype_length(config), seed=seed, shard=shard).to(device)
        return made, RowAdam(made, lr=config.optimiser.prototype_lr)

    table, rows = make_table(config.seed)
    proxies, proxy_rows = make_table(config.seed + _PROXY_SEED) if has_proxies(config) else (None, None)
    average = None
    if config.average:
        average = {role: _copy(network) for role, network in networks.items()}
    optimiser = torch.optim.AdamW(groups)
    return State(networks, table, optimiser, rows, average, Clock(), proxies, proxy_rows)


def rate(settings: OptimiserSection, step: int, steps: int) -> float:
    """Learning rate of a step as a share of the highest: a linear rise, then a cosine down to `final`."""
    rise = max(1, round(settings.warmup * steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def set_rates(state: State, settings: OptimiserSection, step: int, steps: int) -> float:
    """Set every learning rate for a step; returns the share of the highest."""
    share = rate(settings, step, steps)
    for group in state.optimiser.param_groups:
        group["lr"] = group["highest_lr"] * share
    for _, rows in state.tables.values():
        rows.lr = settings.prototype_lr * share
    return share


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """Move the running mean of the weights towards the weights; whole numbers (counters) are copied."""
    if state.average is None:
        return
    # Young means follow quickly, so that the first weights are soon forgotten.
    used = min(decay, (1 + state.clock.step) / (10 + state.clock.step))
    for role, network in state.networks.items():
        mean = state.average[role]
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                mean[name].lerp_(value.detach(), 1 - used)
            else:
                mean[name].copy_(value)


def swap_average(state: State) -> None:
    """Exchange weights and running mean; calling it again undoes it."""
    if state.average is None:
        return
    for role, network in state.networks.items():
        current = _copy(network)
        network.load_state_dict(state.average[role])
        state.average[role] = current


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
