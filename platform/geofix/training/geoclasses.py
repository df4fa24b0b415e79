"""The sets of classes that a CPlaNet is trained on, from the run's training photos."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from geofix.partitions.adaptive import nested_partitions
from geofix.partitions.combinatorial import ATOM_LEVEL, combinatorial_partitions
from geofix.partitions.overlay import intersect
from geofix.partitions.partition import Partition
from geofix.training.places import TrainingPhotos
from geofix.training.sections import Section, Unit

NAME = "cplanet"


class GeoclassSection(Section):
    """Combinatorial partitioning; see `geofix.partitions.combinatorial`."""

    classes: Annotated[int, Field(ge=2)] = 1000
    sets: Annotated[int, Field(ge=2, le=100)] = 5
    atom_photos: Unit | None = None
    max_level: Annotated[int, Field(ge=0, le=30)] = ATOM_LEVEL
    planet: bool = False
    normalise: bool = True


def cut_sets(config: Any, photos: TrainingPhotos) -> tuple[Partition, ...]:
    """The sets, each with a layer of the network, and last the regions of their intersection.

    With `planet` the adaptive cells of the finest `partitions.tau_max` are one set more.

    Raises:
        UsageError: There are more classes than atoms.
        BadInputError: No cell has photos enough for a class of the further set.
    """
    section: GeoclassSection = config.geoclasses
    sets, regions = combinatorial_partitions(
        NAME,
        photos.lon,
        photos.lat,
        classes=section.classes,
        sets=section.sets,
        atom_photos=section.atom_photos,
        max_level=section.max_level,
        position=config.partitions.position,
        seed=config.seed,
    )
    if not section.planet:
        return (*sets, regions)
    cells = nested_partitions(
        f"{NAME}-planet",
        photos.lon,
        photos.lat,
        tau_min=config.partitions.tau_min,
        tau_max=config.partitions.tau_max[-1:],
        max_level=config.partitions.max_level,
        position=config.partitions.position,
    )
    every = (*sets, *cells)
    whole = intersect(
        NAME,
        every,
        photos.lon,
        photos.lat,
        position=config.partitions.position,
        parameters=regions.parameters,
    )
    return (*every, whole)
