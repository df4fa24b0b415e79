"""CPlaNet's partitions: merged sets of classes, their intersection, the vote."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from partition_samples import same, skewed

from geofix.errors import BadInputError, UsageError
from geofix.partitions.adaptive import adaptive_partition
from geofix.partitions.classes import class_means, listed
from geofix.partitions.combinatorial import combinatorial_partitions, make_atoms, merge_atoms
from geofix.partitions.files import load_partition, save_partition
from geofix.partitions.neighbours import sphere_neighbours
from geofix.partitions.outlines import class_outlines
from geofix.partitions.overlay import intersect, overlay_cells
from geofix.partitions.partition import Partition
from geofix.partitions.uniform import uniform_partition
from geofix.partitions.vote import atoms_per_class, best_regions, vote_scores
from geofix.spatial import s2
from geofix.spatial.distance import unit_vectors


def leaves_in(cells: np.ndarray) -> int:
    """Size of cells in leaves, which is exact."""
    return sum(4 ** (30 - int(level)) for level in s2.level(cells))


def random_set(atoms: np.ndarray, classes: int, name: str, rng: np.random.Generator) -> Partition:
    """Atoms given to classes at random, every class at least one."""
    owner = rng.permutation(
        np.concatenate([np.arange(classes), rng.integers(0, classes, len(atoms) - classes)])
    )
    x, y, photos = class_means(owner, classes, *s2.center(atoms))
    return Partition(name, "geoclass", atoms, owner, x, y, photos)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_the_intersection_of_random_partitions(seed: int, sets: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    atoms = np.sort(np.unique(s2.cell_at(*skewed(120, seed), 9)))
    numbers = [int(rng.integers(1, min(most, len(atoms)) + 1)) for _ in range(sets)]
    made = [random_set(atoms, n, f"s{k}", rng) for k, n in enumerate(numbers)]
    lon, lat = s2.center(atoms)
    regions = intersect("r", made, lon, lat)
    assert regions.members is not None
    assert len(regions) >= max(numbers)
    assert len(np.unique(regions.members, axis=0)) == len(regions) <= min(len(atoms), np.prod(numbers))
    assert leaves_in(regions.cells) == leaves_in(atoms)
    assert regions.photos.sum() == len(atoms)
    label = regions.assign(lon, lat)
    for k, one in enumerate(made):
        assert (regions.members[label, k] == one.assign(lon, lat)).all()


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_cells_of_different_levels_are_overlaid_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lon, lat = skewed(300, seed)
    made = [
        adaptive_partition(f"a{k}", lon[part], lat[part], tau_min=t, tau_max=t + 20)
        for k, (t, part) in enumerate([(0, slice(0, 200)), (3, slice(100, 300)), (9, slice(None))])
    ]
    cells, classes = overlay_cells(made)
    first, last = s2.range_of(cells)
    assert (first[1:] > last[:-1]).all() and (classes >= 0).any(axis=1).all()
    x, y = (
        np.concatenate([lon, rng.uniform(-180, 180, 500)]),
        np.concatenate([lat, rng.uniform(-90, 90, 500)]),
    )
    leaf = s2.cell_at(x, y)
    at = np.searchsorted(first, leaf, "right") - 1
    inside = (at >= 0) & (leaf <= last[at])
    told = np.where(inside[:, None], classes[at], -1)
    assert (told == np.stack([p.assign(leaf_ids=leaf) for p in made], axis=1)).all()
    # What they cover together, by inclusion and exclusion on leaf ranges.
    covered = shapely.union_all(
        [shapely.box(a >> 31, 0, (b >> 31) + 1, 1) for p in made for a, b in ranges(p)]
    )
    mine = shapely.union_all(
        [shapely.box(int(a) >> 31, 0, (int(b) >> 31) + 1, 1) for a, b in zip(first, last, strict=True)]
    )
    assert covered.symmetric_difference(mine).area == 0


def ranges(p: Partition) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in zip(*s2.range_of(p.cells), strict=True)]


def test_an_interval_that_is_no_cell_becomes_the_fewest_cells() -> None:
    outer = np.array([s2.cell_at(8.0, 47.0, 5)])
    inner = np.array([s2.cell_at(8.0, 47.0, 7)])
    made = [listed(name, cells, [8.0], [47.0], [1]) for name, cells in (("o", outer), ("i", inner))]
    cells, classes = overlay_cells(made)
    # One cell of level 7, its three siblings, and the three siblings of their parent.
    assert sorted(s2.level(cells).tolist()) == [6, 6, 6, 7, 7, 7, 7] and leaves_in(cells) == leaves_in(outer)
    assert cells[(classes == 0).all(axis=1)].tolist() == inner.tolist()
    lon, lat = s2.center(np.concatenate([inner, s2.children(outer)[0]]))
    regions = intersect("r", made, lon, lat)
    assert regions.members is not None and regions.members.tolist() == [[0, -1], [0, 0]]
    # Without a photo outside the inner cell, the rest is no answer and goes.
    only = intersect("r", made, lon[:1], lat[:1])
    assert (
        only.members is not None
        and only.members.tolist() == [[0, 0]]
        and only.cells.tolist() == inner.tolist()
    )
    assert only.assign(lon, lat).tolist() == [0, -1, -1, -1, -1]


def test_what_cannot_be_intersected_is_refused() -> None:
    one = listed("a", [s2.cell_at(8.0, 47.0, 5)], [8.0], [47.0], [1])
    with pytest.raises(UsageError, match="at least two"):
        intersect("r", [one], [8.0], [47.0])
    with pytest.raises(BadInputError, match="No photo"):
        intersect("r", [one, one], [-100.0], [0.0])
    region = Partition(
        "adm",
        "administrative",
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.array([8.0]),
        np.array([47.0]),
        np.array([1]),
        codes=("A",),
    )
    with pytest.raises(UsageError, match="administrative"):
        intersect("r", [one, region], [8.0], [47.0])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 40, 500])
@pytest.mark.parametrize("shape", ["anywhere", "equator", "two towns", "one town"])
def test_neighbours_make_one_connected_graph(n: int, shape: str) -> None:
    rng = np.random.default_rng(n)
    lon, lat = rng.uniform(-180, 180, n), rng.uniform(-90, 90, n)
    if shape == "equator":
        lat = np.zeros(n)
    elif shape == "two towns":
        lon, lat = (
            np.where(lon > 0, 8.5, -70) + rng.normal(0, 1e-3, n),
            np.where(lon > 0, 47.4, -30) + rng.normal(0, 1e-3, n),
        )
    elif shape == "one town":
        lon, lat = 8.5 + rng.normal(0, 1e-4, n), 47.4 + rng.normal(0, 1e-4, n)
    pairs = sphere_neighbours(unit_vectors(lon, lat).reshape(n, 3))
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs)
    reached, waiting = {0}, [0]
    beside: dict[int, list[int]] = {i: [] for i in range(n)}
    for a, b in pairs.tolist():
        beside[a].append(b)
        beside[b].append(a)
    while waiting and n:
        for other in beside[waiting.pop()]:
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    assert len(reached) == max(n, 1)


def by_hand(atoms, classes: int, a: float, b: float) -> set[frozenset[int]]:  # type: ignore[no-untyped-def]
    """Greedy merging as it is written, everything computed anew at every step."""
    groups = {i: frozenset([i]) for i in range(len(atoms.cells))}
    edges = {tuple(sorted(e)) for e in atoms.edges.tolist()}

    def place(group: frozenset[int]) -> np.ndarray:
        total = atoms.place[list(group)].sum(axis=0)
        return total / np.linalg.norm(total)

    def look(group: frozenset[int]) -> np.ndarray:
        return atoms.look[list(group)].sum(axis=0) / atoms.photos[list(group)].sum()

    single = [frozenset([i]) for i in range(len(atoms.cells))]
    chord = np.mean([np.linalg.norm(place(single[u]) - place(single[v])) for u, v in edges])
    apart = np.mean([np.linalg.norm(look(single[u]) - look(single[v])) for u, v in edges])
    while len(groups) > classes:
        scores = {
            i: a / atoms.photos.mean() * atoms.photos[list(g)].sum() + (1 - a) * len(g)
            for i, g in groups.items()
        }
        root = min(groups, key=lambda i: (scores[i], i))
        u = groups.pop(root)
        beside = [i for i, g in groups.items() if any(tuple(sorted((m, n))) in edges for m in u for n in g)]
        cost = [
            (1 - b) * np.linalg.norm(place(u) - place(groups[i])) / chord
            + b * np.linalg.norm(look(u) - look(groups[i])) / apart
            for i in beside
        ]
        groups[beside[int(np.argmin(cost))]] |= u
    return set(groups.values())


@pytest.mark.parametrize("seed", range(6))
def test_merging_is_the_greedy_one(seed: int) -> None:
    lon, lat = skewed(150, seed)
    rng = np.random.default_rng(seed)
    atoms = make_atoms(lon, lat, atom_photos=4, embeddings=rng.normal(size=(150, 5)))
    a, b = rng.uniform(0.4, 0.9, 2)
    owner = merge_atoms(atoms, 6, size_weight=a, look_weight=b, roughness=0, seed=0)
    assert sorted(np.unique(owner)) == list(range(6))
    found = {frozenset(np.flatnonzero(owner == k).tolist()) for k in range(6)}
    assert found == by_hand(atoms, 6, a, b)


def test_embeddings_move_the_borders_of_classes() -> None:
    """Two looks in stripes along one street: by distance classes are stretches, by look they are stripes."""
    lon = np.linspace(8, 9, 200)
    stripe = (np.arange(200) // 20) % 2
    look = np.eye(2)[stripe]
    atoms = make_atoms(lon, np.full(200, 47.0), atom_photos=1, max_level=17, embeddings=look)
    pure = merge_atoms(atoms, 10, size_weight=0.5, look_weight=1.0, roughness=0, seed=0)
    of_atom = stripe[[int(np.flatnonzero(atoms.label == k)[0]) for k in range(len(atoms.cells))]]
    assert all(len(set(of_atom[pure == k])) == 1 for k in range(10))


def test_sets_differ_and_their_intersection_is_finer() -> None:
    lon, lat = skewed(3000, 2)
    sets, regions = combinatorial_partitions("c", lon, lat, classes=30, sets=4, seed=1)
    assert [p.name for p in sets] == ["c-1", "c-2", "c-3", "c-4"] == list(regions.sets)
    assert len({len(p) for p in sets}) > 1 and all(24 <= len(p) <= 36 for p in sets)
    assert len(regions) > 1.5 * max(len(p) for p in sets)
    assert regions.photos.sum() == 3000 and all(p.photos.sum() == 3000 for p in sets)
    again = combinatorial_partitions("c", lon, lat, classes=30, sets=4, seed=1)
    assert same(again[1], regions) and all(same(a, b) for a, b in zip(again[0], sets, strict=True))
    other = combinatorial_partitions("c", lon, lat, classes=30, sets=4, seed=2)
    assert not same(other[1], regions)
    for one in sets:
        assert one.photos.max() < 3000 / 4  # greedy merging of the smallest keeps sizes alike
    drawn, atoms = class_outlines(sets[0]), s2.polygon(sets[0].cells)
    # Corners of neighbouring cells are rounded apart.
    assert shapely.area(drawn).sum() == pytest.approx(shapely.area(atoms).sum(), rel=1e-7)


def test_planets_cells_can_be_a_further_set(tmp_path) -> None:  # type: ignore[no-untyped-def]
    lon, lat = skewed(3000, 2)
    sets, five = combinatorial_partitions("c", lon, lat, classes=20, sets=3)
    planet = adaptive_partition("planet", lon, lat, tau_min=20, tau_max=100)
    six = intersect("six", [*sets, planet], lon, lat)
    assert six.members is not None and six.members.shape[1] == 4 and len(six) >= len(five)
    assert (six.members[:, 3] == -1).any()  # photos in cells that PlaNet's rule dropped keep their answer
    assert six.photos.sum() == 3000
    assert same(load_partition(save_partition(six, tmp_path)), six)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_vote_is_the_sum_over_sets(normalise: bool) -> None:
    lon, lat = skewed(1500, 4)
    sets, _ = combinatorial_partitions("c", lon, lat, classes=12, sets=3)
    regions = intersect("r", [*sets, adaptive_partition("p", lon, lat, tau_min=30, tau_max=90)], lon, lat)
    assert regions.members is not None
    rng = np.random.default_rng(0)
    sizes = [*(len(p) for p in sets), int(regions.members[:, 3].max()) + 1]
    given_p = [rng.dirichlet(np.ones(n), 7) for n in sizes]
    scores = vote_scores(given_p, regions, normalise=normalise)
    atoms = [
        [sum(regions.members[c, k] == j for c in regions.cell_class) for j in range(n)]
        for k, n in enumerate(sizes)
    ]
    assert [a.tolist() for a in atoms_per_class(regions)] == atoms
    for photo in range(7):
        for region in range(0, len(regions), 5):
            total = 0.0
            for k, j in enumerate(regions.members[region]):
                if j >= 0:
                    total += given_p[k][photo, j] / (atoms[k][j] if normalise else 1)
            assert scores[photo, region] == pytest.approx(total, rel=1e-12)
    best, score = best_regions(given_p, regions, k=3, normalise=normalise)
    assert (score == np.sort(scores, axis=1)[:, :-4:-1]).all()
    assert (np.take_along_axis(scores, best, axis=1) == score).all()


def test_normalising_keeps_large_classes_from_winning_by_size() -> None:
    cells = np.sort(s2.children(s2.cell_at(8.0, 47.0, 8)))
    large = Partition(
        "large",
        "geoclass",
        cells,
        np.array([0, 0, 0, 1]),
        *(np.array([8.0, 8.1]), np.array([47.0, 47.1]), np.array([3, 1])),
    )
    lon, lat = s2.center(cells)
    regions = intersect("r", [large, large], lon, lat)
    even = [np.array([[0.6, 0.4]])] * 2
    assert best_regions(even, regions, normalise=False)[0].tolist() == [[0]]
    assert best_regions(even, regions, normalise=True)[0].tolist() == [[1]]


def test_what_cannot_be_merged_or_voted_is_refused() -> None:
    lon, lat = skewed(200)
    atoms = make_atoms(lon, lat, atom_photos=20)
    with pytest.raises(UsageError, match="cannot be merged into 500 classes"):
        merge_atoms(atoms, 500, size_weight=0.5, look_weight=0, roughness=0, seed=0)
    with pytest.raises(UsageError, match=r"within 0\.\.1"):
        merge_atoms(atoms, 5, size_weight=1.5, look_weight=0, roughness=0, seed=0)
    with pytest.raises(BadInputError, match="one finite vector per photo"):
        make_atoms(lon, lat, atom_photos=20, embeddings=np.ones((199, 4)))
    with pytest.raises(BadInputError, match="one finite vector per photo"):
        make_atoms(lon, lat, atom_photos=20, embeddings=np.full((200, 4), np.nan))
    for wrong, message in (
        ({"sets": 1}, "at least 2"),
        ({"classes": 1}, "too few"),
        ({"classes": 10**6}, "merged"),
    ):
        with pytest.raises(UsageError, match=message):
            combinatorial_partitions("c", lon, lat, **{"classes": 5, "sets": 2, **wrong})
    _, regions = combinatorial_partitions("c", lon, lat, classes=5, sets=2)
    with pytest.raises(UsageError, match="1 sets of probabilities"):
        vote_scores([np.ones((1, 5))], regions)
    with pytest.raises(UsageError, match="do not fit"):
        vote_scores([np.ones((1, 9)), np.ones((1, 1))], regions)
    with pytest.raises(UsageError, match="no intersection"):
        vote_scores([np.ones((1, 9))], uniform_partition("u", lon, lat, level=3))
