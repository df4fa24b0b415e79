"""Partitions made from the photos of a snapshot or of data sets, and stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geofix.database.engine import Connection
from geofix.database.queries import partitions as queries
from geofix.database.queries.models import (
    find_model,
    read_dataset_embeddings,
    read_split_embeddings,
    require_datasets,
)
from geofix.errors import BadInputError, UsageError
from geofix.partitions.adaptive import TAU_MAX, TAU_MIN, nested_partitions
from geofix.partitions.administrative import administrative_partition
from geofix.partitions.combinatorial import ATOM_LEVEL, combinatorial_partitions
from geofix.partitions.partition import Floats, Ints, Partition, Position
from geofix.partitions.store import store_partitions
from geofix.partitions.uniform import uniform_partition
from geofix.spatial import s2

Rule = Literal["uniform", "adaptive", "combinatorial", "administrative"]


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        rule: uniform, adaptive, combinatorial or administrative.
        level: S2 level; uniform alone.
        tau_min: Photos that a class must exceed; None: 50 for adaptive, 0 for the others.
        tau_max: Photos above which a cell is split, coarse first, one partition each; adaptive alone.
        max_level: Finest level of a cell; None: 30, for atoms of a combinatorial one 17.
        classes: About how many classes a set has; combinatorial alone.
        sets: How many sets; combinatorial alone.
        atom_photos: Most photos of an atom; combinatorial alone.
        model: Registered model whose photo embeddings merging looks at; combinatorial alone.
        region_level: Level of the regions; administrative alone.
        position: How a class's position is averaged.
        seed: Of the random parameters; combinatorial alone.
    """

    rule: Rule
    level: int | None = None
    tau_min: int | None = None
    tau_max: tuple[int, ...] = tuple(TAU_MAX.values())
    max_level: int | None = None
    classes: int | None = None
    sets: int = 5
    atom_photos: int | None = None
    model: str | None = None
    region_level: str = "country"
    position: Position = "sphere"
    seed: int = 0


@dataclass(frozen=True)
class Photos:
    """Photos to make a partition from: ids ascending, positions in degrees, (n,) each; and whose they are."""

    ids: Ints
    lon: Floats
    lat: Floats
    snapshot_id: int | None
    datasets: list[str]


def read_photos(conn: Connection, *, snapshot_id: int | None, datasets: list[str]) -> Photos:
    """Training photos of a stored snapshot, or all photos of data sets.

    Raises:
        UsageError: Both or none given.
        NotFoundError: An unknown data set.
        BadInputError: There is no photo.
    """
    if (snapshot_id is None) == (not datasets):
        raise UsageError("Give a snapshot or data sets.", hint="Training photos, or all photos of data sets.")
    if datasets:
        require_datasets(conn, datasets, "photos")
    found = queries.training_positions(conn, snapshot_id=snapshot_id, datasets=datasets)
    if not len(found["photo_id"]):
        where = (
            "the snapshot has no training photo" if snapshot_id is not None else f"{datasets} have no photo"
        )
        raise BadInputError(f"A partition needs photos, and {where}.")
    return Photos(found["photo_id"], found["lon"], found["lat"], snapshot_id, datasets)


def make_partitions(conn: Connection, name: str, plan: Plan, photos: Photos) -> tuple[Partition, ...]:
    """The partitions of a plan, each after those that it points to.

    One, but: an adaptive rule with several tau_max gives nested ones, coarse to fine, and a combinatorial
    rule its sets and then their intersection, which has the name itself.

    Raises:
        UsageError: The plan cannot be.
        BadInputError: The photos do not allow it.
    """
    lon, lat, position = photos.lon, photos.lat, plan.position
    if plan.rule == "uniform":
        if plan.level is None:
            raise UsageError("A uniform partition needs a level.", hint="Give --level.")
        tau_min = plan.tau_min or 0
        return (uniform_partition(name, lon, lat, level=plan.level, tau_min=tau_min, position=position),)
    if plan.rule == "adaptive":
        return nested_partitions(
            name,
            lon,
            lat,
            tau_min=TAU_MIN if plan.tau_min is None else plan.tau_min,
            tau_max=plan.tau_max,
            max_level=s2.MAX_LEVEL if plan.max_level is None else plan.max_level,
            position=position,
        )
    if plan.rule == "combinatorial":
        if plan.classes is None:
            raise UsageError("A combinatorial partition needs a number of classes.", hint="Give --classes.")
        sets, regions = combinatorial_partitions(
            name,
            lon,
            lat,
            classes=plan.classes,
            sets=plan.sets,
            atom_photos=plan.atom_photos,
            max_level=ATOM_LEVEL if plan.max_level is None else plan.max_level,
            embeddings=None if plan.model is None else _embeddings(conn, plan.model, photos),
            position=position,
            seed=plan.seed,
        )
        return (*sets, regions)
    if plan.rule == "administrative":
        return (_administrative(conn, name, plan, photos),)
    raise UsageError(f"Unknown rule {plan.rule!r}.")


def build_partitions(
    conn: Connection, name: str, plan: Plan, photos: Photos, *, overwrite: bool = False
) -> tuple[Partition, ...]:
    """Make and store the partitions of a plan; the caller commits. Errors as `make_partitions`.

    Raises:
        UsageError: A name is taken.
    """
    made = make_partitions(conn, name, plan, photos)
    taken = queries.taken_names(conn, [p.name for p in made])
    if taken and not overwrite:
        raise UsageError(
            f"A partition is named {taken[0]!r} already.", hint="Give another name or --overwrite."
        )
    sources = queries.source_datasets(conn, snapshot_id=photos.snapshot_id, datasets=photos.datasets)
    store_partitions(conn, made, snapshot_id=photos.snapshot_id, dataset_ids=sources, overwrite=bool(taken))
    return made


def _administrative(conn: Connection, name: str, plan: Plan, photos: Photos) -> Partition:
    codes = queries.region_codes(conn, photos.ids, plan.region_level)
    wanted = sorted({code for code in codes if code is not None})
    outlines = queries.region_outlines(conn, plan.region_level, wanted)
    return administrative_partition(
        name,
        codes,
        photos.lon,
        photos.lat,
        level=plan.region_level,
        outlines={code: shapely.set_srid(shapely.from_wkb(shape), 0) for code, shape in outlines.items()},
        tau_min=plan.tau_min or 0,
        position=plan.position,
    )


def _embeddings(conn: Connection, model: str, photos: Photos) -> NDArray[np.float16]:
    row = find_model(conn, model)
    if photos.snapshot_id is not None:
        ids, vectors = read_split_embeddings(conn, row, photos.snapshot_id, ["train"])
    else:
        ids, vectors = read_dataset_embeddings(conn, row, photos.datasets)
    if not np.array_equal(ids, photos.ids):
        raise BadInputError(
            f"Model {model!r} has embedded {len(ids)} of {len(photos.ids)} photos.",
            hint="Embed them all first: geofix embed photos.",
        )
    return vectors
