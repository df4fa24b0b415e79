"""Trained classifiers of positions as localizers: they look at the photo and rank their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofix.errors import GeofixError
from geofix.localizers.base import Candidates, Ints
from geofix.localizers.crop_inputs import as_batch, combine, cut_crops, score_blocks
from geofix.localizers.crops import POLICIES, Crops
from geofix.log import get_logger
from geofix.models.classifier import Classifier
from geofix.models.classifier_dir import TrainedClassifier
from geofix.models.mvmf import Mixture, density_mode
from geofix.models.scene_classifier import SceneClassifier
from geofix.settings import get_settings
from geofix.spatial import s2
from geofix.training.planes import read_planes
from geofix.training.samples import read_photo

_log = get_logger(__name__)
Scores = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Answers:
    """Where each class answers, shape (n,).

    Attributes:
        s2_id: The leaf of the position, or the cell where its centre is the answer.
        lon: Degrees.
        lat: Degrees.
    """

    s2_id: Ints
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]

    @classmethod
    def at(cls, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> Answers:
        """Positions by their leaf cells."""
        return cls(s2.cell_at(lon, lat), np.asarray(lon, np.float64), np.asarray(lat, np.float64))

    @classmethod
    def centres(cls, cells: Ints) -> Answers:
        """Centres of cells."""
        lon, lat = s2.center(cells)
        return cls(cells, lon, lat)


@dataclass(frozen=True, eq=False)
class ClassifierLocalizer:
    """Ranks the classes of one partition by the network's scores.

    Attributes:
        name: Of the localizer, with the inference that makes its scores.
        trained: Network and partitions.
        answers: Of the ranked classes.
        scores: From log scores (B, classes) per partition to those of the ranked classes.
        crops: What of a photo the network is shown.
    """

    name: str
    trained: TrainedClassifier
    answers: Answers
    scores: Scores
    crops: Crops = field(default_factory=lambda: POLICIES["single"])

    @property
    def answer_ids(self) -> Ints:
        """Sorted ids of the answers."""
        return np.sort(self.answers.s2_id)

    def with_crops(self, crops: Crops) -> ClassifierLocalizer:
        """The same, shown other parts of a photo."""
        return replace(self, crops=crops)

    def localize_photos(self, photos: Sequence[str | None], k: int, ranges: Ints | None = None) -> Candidates:
        """Rank classes; see `PhotoLocalizer.localize_photos`."""
        found = Candidates.empty(len(photos), k)
        ask = Asked(self.trained, self.answers, self.crops, photos, ranges)
        for _ in rank(found, ask, self.scores):
            pass
        return found


@dataclass(frozen=True, eq=False)
class MixtureLocalizer:
    """Ranks the components of a von Mises-Fisher mixture by their weight.

    Attributes:
        name: mvmf, or mvmf_mode.
        trained: Network and partition.
        answers: Directions of the components.
        mode: Answer with the place where the whole mixture is densest; the components follow it.
        crops: What of a photo the network is shown.
    """

    name: str
    trained: TrainedClassifier
    answers: Answers
    mode: bool = False
    crops: Crops = field(default_factory=lambda: POLICIES["single"])

    @property
    def answer_ids(self) -> Ints:
        """Sorted leaf ids of the components' directions."""
        return np.sort(self.answers.s2_id)

    def with_crops(self, crops: Crops) -> MixtureLocalizer:
        """The same, shown other parts of a photo."""
        return replace(self, crops=crops)

    def localize_photos(self, photos: Sequence[str | None], k: int, ranges: Ints | None = None) -> Candidates:
        """Rank components; a mode outside the ranges is no answer. See `PhotoLocalizer.localize_photos`."""
        found = Candidates.empty(len(photos), k)
        ask = Asked(self.trained, self.answers, self.crops, photos, ranges)
        for numbers, weights in rank(found, ask, lambda parts: parts[0]):
            if self.mode:
                self._modes_first(found, numbers, weights, ranges)
        return found

    def _modes_first(self, found: Candidates, numbers: Ints, weights: Tensor, ranges: Ints | None) -> None:
        """Put the densest place before the components, whose last falls out; its score is theirs or more."""
        network = self.trained.network
        assert isinstance(network, Mixture)
        with torch.inference_mode():
            points, _ = density_mode(weights, network.directions(), network.prekappa)
        lon, lat = degrees(points.cpu().numpy())
        place = Answers.at(lon, lat)
        allowed = in_ranges(place.s2_id, ranges)
        for row, number in enumerate(numbers[allowed].tolist()):
            source = np.flatnonzero(allowed)[row]
            best = found.score[number, 0]
            for values, first in (
                (found.s2_id, place.s2_id[source]),
                (found.lon, lon[source]),
                (found.lat, lat[source]),
                (found.score, best),
            ):
                values[number, 1:] = values[number, :-1].copy()
                values[number, 0] = first


@dataclass(frozen=True, eq=False)
class Asked:
    """What a network is asked: photos, shown as `crops` say, with answers that lie in `ranges`."""

    trained: TrainedClassifier
    answers: Answers
    crops: Crops
    photos: Sequence[str | None]
    ranges: Ints | None


def rank(found: Candidates, asked: Asked, scores: Scores) -> Iterator[tuple[Ints, Tensor]]:
    """Fill in the best answers block by block; yields numbers of the photos and all their scores (b, n)."""
    rows = np.flatnonzero(in_ranges(asked.answers.s2_id, asked.ranges))
    if not len(rows):
        return
    chosen, k = torch.from_numpy(rows), found.s2_id.shape[1]
    for numbers, logits in network_logits(asked.trained, asked.photos, asked.crops):
        values = scores([combine(part, asked.crops) for part in logits])
        top = values.cpu()[:, chosen].topk(min(k, len(rows)), dim=1)
        put(found, numbers, asked.answers, rows[top.indices.numpy()], top.values.numpy())
        yield numbers, values


def put(found: Candidates, numbers: Ints, answers: Answers, best: Ints, scores: NDArray[Any]) -> None:
    """Fill in ranked classes (b, m) of the photos `numbers`."""
    count = best.shape[1]
    found.s2_id[numbers, :count], found.score[numbers, :count] = answers.s2_id[best], scores
    found.lon[numbers, :count], found.lat[numbers, :count] = answers.lon[best], answers.lat[best]


def in_ranges(ids: Ints, ranges: Ints | None) -> NDArray[np.bool_]:
    """Which ids lie in one of the closed ranges (n, 2); all where there is no range."""
    if ranges is None:
        return np.ones(len(ids), bool)
    if not len(ranges):
        return np.zeros(len(ids), bool)
    ordered = ranges[np.argsort(ranges[:, 0])]
    at = np.searchsorted(ordered[:, 0], ids, side="right") - 1
    return np.asarray((at >= 0) & (ids <= ordered[np.maximum(at, 0), 1]), bool)


def degrees(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of unit vectors (n, 3)."""
    x, y, z = points.T
    return np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


def network_logits(
    trained: TrainedClassifier, photos: Sequence[str | None], crops: Crops
) -> Iterator[tuple[Ints, list[Tensor]]]:
    """Numbers of the photos that can be read, and logits (b, crops, classes) per partition, in blocks."""
    network, encoder = trained.network, trained.encoder
    transform = encoder.transform
    planes = read_planes(trained.metadata.get("planes"))

    def load(uri: str | None) -> NDArray[np.float32] | None:
        if uri is None:
            return None
        try:
            pixels = read_photo(uri, transform)
            plane = None if planes is None else planes.image(uri, pixels)
            return cut_crops(pixels, transform, crops, plane)
        except (GeofixError, OSError, ValueError) as error:
            _log.warning("photo not answered", photo=uri, reason=str(error))
            return None

    network.eval()
    with ThreadPoolExecutor(get_settings().workers or 2, thread_name_prefix="photos") as pool:
        for block in score_blocks(len(photos), crops):
            parts = list(pool.map(load, photos[block]))
            numbers = np.array(
                [block.start + i for i, part in enumerate(parts) if part is not None], np.int64
            )
            if not len(numbers):
                continue
            images = as_batch([part for part in parts if part is not None], encoder.device)
            with torch.inference_mode():
                found = _outputs(network, images, crops.count)
            yield numbers, [values.reshape(len(numbers), crops.count, -1) for values in found]


def _outputs(network: Classifier | Mixture, images: Tensor, together: int) -> list[Tensor]:
    """Logits per partition, or of the mixture's weights."""
    if isinstance(network, SceneClassifier):
        return network.outputs(images, together)[0]
    return network(images) if isinstance(network, Classifier) else [network.logits(images)]
