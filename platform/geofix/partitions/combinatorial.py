"""CPlaNet's partitions (Seo et al., ECCV 2018): several sets of classes, each merged from small S2 cells.

What the paper's abstract says is kept: coarse sets of classes that differ, their intersection into many fine
regions, a vote of all sets. How cells are merged is our own design where the paper's text was not at hand:
docs/partitions.md lists what was chosen.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofix.errors import BadInputError, UsageError
from geofix.log import progress
from geofix.partitions.adaptive import adaptive_cells
from geofix.partitions.classes import class_means, photo_leaves
from geofix.partitions.containment import assign_cells
from geofix.partitions.neighbours import sphere_neighbours
from geofix.partitions.overlay import intersect
from geofix.partitions.partition import Floats, Ints, Partition, Position
from geofix.spatial.distance import unit_vectors

ATOM_LEVEL = 17  # about 75 m: finer atoms than a class can need
ATOMS_PER_CLASS = 8


@dataclass(frozen=True)
class Atoms:
    """Small cells with photos, the nodes that sets of classes are merged from.

    Attributes:
        cells: S2 cells in ascending order, (m,).
        label: Atom of each photo, (n,).
        photos: Photos of each atom, (m,).
        place: Sum of its photos' unit vectors, (m, 3).
        look: Sum of its photos' embeddings, (m, D); None without embeddings.
        edges: Pairs of neighbouring atoms, (e, 2).
    """

    cells: Ints
    label: Ints
    photos: Ints
    place: Floats
    look: Floats | None
    edges: Ints


def make_atoms(
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    atom_photos: int,
    max_level: int = ATOM_LEVEL,
    embeddings: NDArray[np.floating] | None = None,
) -> Atoms:
    """Adaptive cells of at most `atom_photos` photos (more at `max_level`), and their neighbours.

    Neighbours are those of the Delaunay triangulation of the atoms' mean positions on the sphere, so seas and
    empty land are bridged and the graph is connected.

    Args:
        lon: Degrees, (n,).
        lat: Degrees, (n,).
        atom_photos: Cells with more are split.
        max_level: Finest level.
        embeddings: Visual features of the photos, (n, D), any length.

    Raises:
        BadInputError: Numbers of photos and embeddings differ, or a feature is no number.
    """
    x, y, leaves = photo_leaves(lon, lat)
    cells = adaptive_cells(leaves, tau_min=0, tau_max=atom_photos, max_level=max_level)
    label = assign_cells(leaves, cells).astype(np.int64)
    vectors = unit_vectors(x, y)
    photos = np.bincount(label, minlength=len(cells)).astype(np.int64)
    place: Floats = np.stack(
        [np.bincount(label, axis, len(cells)).astype(np.float64) for axis in vectors.T], axis=1
    )
    look = None
    if embeddings is not None:
        look = _sums(np.asarray(embeddings), label, len(cells))
    edges = sphere_neighbours(place / np.linalg.norm(place, axis=1, keepdims=True))
    return Atoms(cells, label, photos, place, look, edges)


def _sums(features: NDArray[np.floating], label: Ints, n: int) -> Floats:
    if features.ndim != 2 or len(features) != len(label) or not np.isfinite(features).all():
        raise BadInputError(
            f"Embeddings {features.shape} of {len(label)} photos are not one finite vector per photo.",
            hint="Embed every photo of the snapshot, or merge by distance alone.",
        )
    out = np.zeros((n, features.shape[1]))
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    out[label[order[starts]]] = np.add.reduceat(features[order].astype(np.float64), starts, axis=0)
    return out


def merge_atoms(
    atoms: Atoms, classes: int, *, size_weight: float, look_weight: float, roughness: float, seed: int
) -> Ints:
    """Class 0..classes-1 of each atom, by greedy merging.

    The node with the lowest score is merged into the neighbour with the lowest edge weight until `classes`
    nodes are left:

        score = a * photos / mean photos + (1 - a) * atoms / mean atoms            a = size_weight
        edge  = exp(r) * ((1 - b) * chord / mean chord + b * look / mean look)     b = look_weight

    chord: between mean positions, as a chord of the unit sphere; look: euclidean distance of the mean
    embeddings; both means are over the atoms' own edges. r: of the neighbour, drawn once per atom from a
    normal distribution with deviation `roughness`.

    Raises:
        UsageError: `classes` is not 1 .. number of atoms, or a weight is out of range.
    """
    n = len(atoms.cells)
    if not 1 <= classes <= n:
        raise UsageError(
            f"{n} atoms cannot be merged into {classes} classes.",
            hint="Ask for fewer classes, or for smaller atoms.",
        )
    if not (0 <= size_weight <= 1 and 0 <= look_weight <= 1 and roughness >= 0):
        raise UsageError("size_weight and look_weight are within 0..1, roughness is not negative.")
    if atoms.look is None:
        look_weight = 0.0
    graph = _Graph(atoms, size_weight, look_weight, roughness, np.random.default_rng(seed))
    for _ in range(n - classes):
        graph.merge_smallest()
    return graph.labels()


class _Graph:
    """Nodes that are merged; plain Python numbers, since every step touches a handful of them."""

    def __init__(
        self, atoms: Atoms, size_weight: float, look_weight: float, roughness: float, rng: np.random.Generator
    ) -> None:
        n = len(atoms.cells)
        self.per_photo, self.per_atom = size_weight / float(atoms.photos.mean()), 1 - size_weight
        self.photos: list[int] = atoms.photos.tolist()
        self.atoms = [1] * n
        self.place = atoms.place.tolist()
        self.mean = (atoms.place / np.linalg.norm(atoms.place, axis=1, keepdims=True)).tolist()
        self.look = None if atoms.look is None or look_weight == 0 else atoms.look.copy()
        self.rough = np.exp(rng.normal(0, roughness, n) if roughness else np.zeros(n)).tolist()
        self.beside: list[set[int]] = [set() for _ in range(n)]
        for u, v in atoms.edges.tolist():
            self.beside[u].add(v)
            self.beside[v].add(u)
        self.into = list(range(n))
        # From whole numbers, so that equal nodes have equal scores and the lower number goes first.
        self.heap = [(self._score(i), i) for i in range(n)]
        heapq.heapify(self.heap)
        self._scale(atoms, look_weight)

    def _score(self, u: int) -> float:
        return self.per_photo * self.photos[u] + self.per_atom * self.atoms[u]

    def _scale(self, atoms: Atoms, look_weight: float) -> None:
        u, v = atoms.edges.T
        places = np.asarray(self.mean)
        chord = np.linalg.norm(places[u] - places[v], axis=1).mean() if len(u) else 1.0
        self.per_chord = (1 - look_weight) / max(float(chord), 1e-15)
        self.per_look = 0.0
        if self.look is not None and len(u):
            means = self.look / np.asarray(self.photos)[:, None]
            self.per_look = look_weight / max(
                float(np.linalg.norm(means[u] - means[v], axis=1).mean()), 1e-15
            )

    def merge_smallest(self) -> None:
        while True:
            score, u = heapq.heappop(self.heap)
            if self.into[u] == u and score == self._score(u):
                break
        v = self._nearest(u)
        self.into[u] = v
        self.beside[v] |= self.beside[u]
        self.beside[v] -= {u, v}
        for w in self.beside[u]:
            self.beside[w].discard(u)
            if w != v:
                self.beside[w].add(v)
        self.beside[u] = set()
        if self.photos[u] > self.photos[v]:
            self.rough[v] = self.rough[u]
        self.photos[v] += self.photos[u]
        self.atoms[v] += self.atoms[u]
        a, b = self.place[u], self.place[v]
        total = [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
        length = (total[0] ** 2 + total[1] ** 2 + total[2] ** 2) ** 0.5 or 1.0
        self.place[v] = total
        self.mean[v] = [total[0] / length, total[1] / length, total[2] / length]
        if self.look is not None:
            self.look[v] += self.look[u]
        heapq.heappush(self.heap, (self._score(v), v))

    def _nearest(self, u: int) -> int:
        x, y, z = self.mean[u]
        others = sorted(self.beside[u])
        cost = []
        for v in others:
            a, b, c = self.mean[v]
            cost.append(((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) ** 0.5 * self.per_chord)
        if self.look is not None:
            means = self.look[others] / np.asarray([self.photos[v] for v in others])[:, None]
            apart = np.linalg.norm(means - self.look[u] / self.photos[u], axis=1) * self.per_look
            cost = [c + a for c, a in zip(cost, apart.tolist(), strict=True)]
        return min(zip(cost, others, strict=True), key=lambda p: (p[0] * self.rough[p[1]], p[1]))[1]

    def labels(self) -> Ints:
        root = np.asarray(self.into)
        while not np.array_equal(up := root[root], root):
            root = up
        return np.unique(root, return_inverse=True)[1].astype(np.int64)


def combinatorial_partitions(
    name: str,
    lon: ArrayLike,
    lat: ArrayLike,
    *,
    classes: int,
    sets: int = 5,
    atom_photos: int | None = None,
    max_level: int = ATOM_LEVEL,
    embeddings: NDArray[np.floating] | None = None,
    position: Position = "sphere",
    seed: int = 0,
) -> tuple[tuple[Partition, ...], Partition]:
    """Several sets of classes and the regions of their intersection.

    Every set has its own random parameters: the number of classes (0.85 to 1.15 times `classes`),
    size_weight (0.3 to 1), look_weight (0.2 to 0.7; 0 without embeddings) and the nodes' roughness
    (deviation 0.3). The same seed makes the same sets.

    Args:
        name: Of the intersection; sets are NAME-1, NAME-2 ...
        lon: Degrees of the training photos, (n,).
        lat: Degrees, (n,).
        classes: About how many classes each set has.
        sets: How many sets.
        atom_photos: Most photos of an atom; default: so that there are about 8 atoms per class.
        max_level: Finest level of an atom.
        embeddings: (n, D); merging looks at them beside the distance.
        position: How a class's position is averaged.
        seed: Of the random parameters.

    Returns:
        The sets, and the intersection (kind combinatorial, with `members`).

    Raises:
        UsageError: Fewer than two sets, or more classes than atoms.
        BadInputError: No photo, a bad position, or embeddings that do not fit.
    """
    x, y, _ = photo_leaves(lon, lat)
    if sets < 2:
        raise UsageError(f"{sets} set of classes has no intersection; give at least 2.")
    if classes < 2:
        raise UsageError(f"{classes} classes are too few for a set; give at least 2.")
    per_atom = atom_photos or max(1, x.size // (classes * ATOMS_PER_CLASS))
    atoms = make_atoms(x, y, atom_photos=per_atom, max_level=max_level, embeddings=embeddings)
    rng = np.random.default_rng(seed)
    made = []
    with progress("sets of classes", total=sets, unit="sets") as advance:
        for number in range(1, sets + 1):
            drawn = {
                "classes": max(2, round(classes * rng.uniform(0.85, 1.15))),
                "size_weight": float(rng.uniform(0.3, 1)),
                "look_weight": float(rng.uniform(0.2, 0.7)) if embeddings is not None else 0.0,
                "roughness": 0.3,
                "seed": int(rng.integers(2**31)),
            }
            owner = merge_atoms(atoms, **drawn)  # type: ignore[arg-type]
            mean_lon, mean_lat, photos = class_means(owner[atoms.label], owner.max() + 1, x, y, position)
            made.append(
                Partition(
                    name=f"{name}-{number}",
                    kind="geoclass",
                    cells=atoms.cells,
                    cell_class=owner,
                    lon=mean_lon,
                    lat=mean_lat,
                    photos=photos,
                    parameters={
                        **drawn,
                        "atom_photos": per_atom,
                        "max_level": max_level,
                        "position": position,
                    },
                )
            )
            advance()
    regions = intersect(
        name, made, x, y, position=position, parameters={"seed": seed, "atom_photos": per_atom}
    )
    return tuple(made), regions
