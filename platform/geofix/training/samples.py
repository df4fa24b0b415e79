"""Batches of photos with the aerial view of their place, decoded, cut and varied in worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from geofix.errors import BadInputError, GeofixError, UsageError
from geofix.imagery.photo import decode_photo_at
from geofix.imagery.raster import SIDE_M, Square, read_square
from geofix.imagery.transforms import InputTransform
from geofix.spatial.distance import great_circle_m
from geofix.spatial.frames import LocalFrame
from geofix.training.colour import Jitter, jitter
from geofix.training.places import AerialIndex, TrainingPhotos, View

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NEGATIVE_M = 300.0
"""A tile whose centre lies further than this from a camera is a negative of it."""
MIN_VALID = 0.5
"""A tile with a smaller share of valid pixels shows no place."""
_TRIES = 16


@dataclass(frozen=True)
class Augmentation:
    """How a pair is varied; a mirror image is never made: the world has none.

    Attributes:
        rotate: Turn the tile to any bearing.
        shift_m: Most that the tile's centre is moved away from the camera, right and up in its own frame. A
            tile that the encoder crops is moved so little that the camera stays inside what is left.
        scale: Least share of a photo's area that is kept by the random crop.
        jitter: Colours of both views; None leaves them.
    """

    rotate: bool = True
    shift_m: float = 70.0
    scale: float = 0.7
    jitter: Jitter | None = field(default_factory=Jitter)

    def __post_init__(self) -> None:
        if not self.shift_m >= 0.0 or not 0.0 < self.scale <= 1.0:
            raise UsageError(f"Shift {self.shift_m} m must not be negative, scale {self.scale} in (0, 1].")


NONE = Augmentation(rotate=False, shift_m=0.0, scale=1.0, jitter=None)
"""Photos and tiles as they are embedded later."""


@dataclass
class Batch:
    """Photos and tiles of one step.

    Attributes:
        ground: (B, 3, H, W) float32, the ground encoder's input.
        aerial: (B, 3, h, w) float32, the aerial encoder's; zeros where there is no tile, (B, 3, 0, 0) when no
            aerial encoder is trained.
        lon: (B,) degrees of the cameras.
        lat: (B,) degrees.
        tile_lon: (B,) degrees of the tiles' centres.
        tile_lat: (B,) degrees.
        tile_rotation_deg: (B,) compass bearing of each tile's upper edge.
        has_aerial: (B,) a tile was read.
        rows: (B,) rows of the photos, replacements included.
        unreadable: (path, reason) of files that could not be read.
    """

    ground: torch.Tensor
    aerial: torch.Tensor
    lon: Floats
    lat: Floats
    tile_lon: Floats
    tile_lat: Floats
    tile_rotation_deg: Floats
    has_aerial: NDArray[np.bool_]
    rows: Ints
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with its pictures on a device."""
        ground, aerial = (x.to(device, non_blocking=non_blocking) for x in (self.ground, self.aerial))
        return replace(self, ground=ground, aerial=aerial)

    def pin_memory(self) -> Batch:
        """The same batch with its pictures in page-locked memory; called by a DataLoader that pins."""
        return replace(self, ground=self.ground.pin_memory(), aerial=self.aerial.pin_memory())


class Pairs(Dataset[Batch]):
    """The batches of one epoch; index = step. Use with `DataLoader(pairs, batch_size=None, num_workers=n)`.

    Each sample has a generator of its own, seeded from seed, epoch, step and place in the batch: a batch is
    the same whatever the number of workers and wherever a run was taken up again.

    A photo that cannot be read gives its place to another one; a raster that cannot be read leaves its photo
    without a tile, unless another date shows the place. Both are named in `Batch.unreadable`.

    Args:
        photos: What `plan` counts.
        plan: (steps, B) rows, from `plan_epoch`.
        ground: The ground encoder's input transform.
        aerial: The aerial encoder's, or None.
        index: Imagery; None trains without.
        seed: Of the training.
        epoch: Number of the epoch.
        side_m: Side of a tile in metres.
        augmentation: `NONE` shows things as they are embedded.
    """

    def __init__(
        self,
        photos: TrainingPhotos,
        plan: Ints,
        ground: InputTransform,
        aerial: InputTransform | None = None,
        index: AerialIndex | None = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        side_m: float = SIDE_M,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.photos, self.plan = photos, plan
        self.ground, self.aerial, self.index = ground, aerial, index
        self.seed, self.epoch, self.side_m = seed, epoch, side_m
        self.augmentation = augmentation or Augmentation()
        self._bad: dict[int, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))

    def __getitem__(self, step: int) -> Batch:
        planned = self.plan[step]
        generators = [np.random.default_rng([self.seed, self.epoch, step, i]) for i in range(len(planned))]
        unreadable: dict[str, str] = {}
        rows, pictures = np.empty(len(planned), np.int64), []
        for place, (row, rng) in enumerate(zip(planned.tolist(), generators, strict=True)):
            rows[place], picture = self._photo(row, rng, unreadable)
            pictures.append(picture)
        lon, lat = self.photos.lon[rows], self.photos.lat[rows]
        squares = self._squares(lon, lat, generators)
        aerial, seen = self._tiles(squares, generators, unreadable)
        tile_lon, tile_lat = _centres(squares)
        return Batch(
            ground=torch.from_numpy(np.stack(pictures)),
            aerial=torch.from_numpy(aerial),
            lon=lon,
            lat=lat,
            tile_lon=tile_lon,
            tile_lat=tile_lat,
            tile_rotation_deg=np.array([square.rotation_deg for square in squares]),
            has_aerial=seen,
            rows=rows,
            unreadable=sorted(unreadable.items()),
        )

    def _photo(
        self, row: int, rng: np.random.Generator, unreadable: dict[str, str]
    ) -> tuple[int, NDArray[np.float32]]:
        """The photo of a row, or of another row drawn in its place."""
        for _ in range(_TRIES):
            if row not in self._bad:
                try:
                    return row, self._picture(row, rng)
                except GeofixError as error:
                    self._bad[row] = (self.photos.uri[row], error.message)
                except (OSError, ValueError) as error:  # of a remote file system
                    self._bad[row] = (self.photos.uri[row], f"{type(error).__name__}: {error}")
            uri, reason = self._bad[row]
            unreadable[uri] = reason
            row = int(np.random.default_rng([row, *rng.integers(0, 2**31, 2)]).integers(len(self.photos)))
        uri, reason = self._bad[row] if row in self._bad else next(iter(unreadable.items()))
        raise BadInputError(
            f"{_TRIES} photos one after the other cannot be read; {uri}: {reason}",
            hint="Are the photos where the snapshot says? Build it again if they moved.",
        )

    def _picture(self, row: int, rng: np.random.Generator) -> NDArray[np.float32]:
        pixels = read_photo(self.photos.uri[row], self.ground)
        varied = self.augmentation
        image = Image.fromarray(pixels)
        if varied.scale < 1.0:
            image = image.crop(_box(image.size, varied.scale, rng))
        out = self.ground.apply(image)
        return out if varied.jitter is None else jitter(out, self.ground, varied.jitter, rng)

    def _squares(self, lon: Floats, lat: Floats, generators: list[np.random.Generator]) -> list[Square]:
        """The square of ground wished for each camera."""
        size = 1 if self.aerial is None else max(self.aerial.size)
        reach = min(self.augmentation.shift_m, self._visible() / 2)
        squares = []
        for x, y, rng in zip(lon.tolist(), lat.tolist(), generators, strict=True):
            turn = float(rng.uniform(0.0, 360.0)) if self.augmentation.rotate else 0.0
            shift = rng.uniform(-reach, reach, 2) if reach > 0 else np.zeros(2)
            squares.append(Square(x, y, self.side_m, size, turn, (float(shift[0]), float(shift[1]))))
        return squares

    def _visible(self) -> float:
        """Side in metres of what the aerial encoder's crop leaves of a tile."""
        if self.aerial is None or self.aerial.fit == "squash":
            return self.side_m
        height, width = self.aerial.size
        return self.side_m * min(height, width) / max(height, width) * self.aerial.crop

    def _tiles(
        self, squares: list[Square], generators: list[np.random.Generator], unreadable: dict[str, str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Inputs and whether each shows something; `squares` become those that were read."""
        seen = np.zeros(len(squares), bool)
        if self.aerial is None:
            return np.zeros((len(squares), 3, 0, 0), np.float32), seen
        out = np.zeros((len(squares), 3, *self.aerial.size), np.float32)
        if self.index is None:
            return out, seen
        lon, lat = (np.array([getattr(square, name) for square in squares]) for name in ("lon", "lat"))
        for place, views in enumerate(self.index.views(lon, lat)):
            rng = generators[place]
            # Where a moved tile shows too little, at the border of the imagery, it stays around the camera.
            here = replace(squares[place], offset_m=(0.0, 0.0))
            order = rng.permutation(len(views)).tolist()
            for number, square in product(order, (squares[place], here)):
                pixels = _cut(views[number], square, unreadable)
                if pixels is not None:
                    squares[place] = square
                    shown = self.aerial.apply(pixels)
                    amount = self.augmentation.jitter
                    out[place] = shown if amount is None else jitter(shown, self.aerial, amount, rng)
                    seen[place] = True
                    break
        return out, seen


def read_photo(uri: str, transform: InputTransform) -> NDArray[np.uint8]:
    """Pixels of a photo at the size at which it is also decoded for embedding.

    Raises:
        BadPhoto: With its reason.
    """
    return decode_photo_at(uri, max_side=transform.decode_side)


def tile_input(
    index: AerialIndex, row: int, transform: InputTransform, side_m: float | None = None
) -> NDArray[np.float32] | None:
    """The north-up tile of a cell as the aerial encoder's input (3, h, w); None when it shows nothing.

    Raises:
        RasterError: A raster cannot be read.
    """
    lon, lat = index.centers(np.array([row]))
    side = float(index.side_m[row]) if side_m is None else side_m
    pixels, valid = read_square(
        index.sources_of(row), float(lon[0]), float(lat[0]), side, max(transform.size)
    )
    return transform.apply(pixels) if valid.any() else None


def pair_masks(batch: Batch, side_m: float = SIDE_M) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tiles are positives and negatives of which cameras; what is neither is left out of the loss.

    Args:
        batch: Cameras and tiles.
        side_m: Side of the tiles in metres.

    Returns:
        positive, negative: (B, B) bool on the CPU, [camera, tile]. Positive where the camera lies inside the
        tile, negative where the tile's centre is more than `NEGATIVE_M` away. A tile that was not read is
        neither.
    """
    distance = great_circle_m(
        batch.lon[:, None], batch.lat[:, None], batch.tile_lon[None, :], batch.tile_lat[None, :]
    )
    positive = np.zeros(distance.shape, bool)
    camera, tile = np.nonzero(distance <= side_m)
    if len(camera):
        frame = LocalFrame(batch.tile_lon[tile], batch.tile_lat[tile])
        east, north = frame.to_metres(batch.lon[camera], batch.lat[camera])
        turn = np.deg2rad(batch.tile_rotation_deg[tile])
        right = east * np.cos(turn) - north * np.sin(turn)
        up = east * np.sin(turn) + north * np.cos(turn)
        positive[camera, tile] = np.maximum(np.abs(right), np.abs(up)) <= side_m / 2
    negative = (distance > NEGATIVE_M) & ~positive
    seen = batch.has_aerial[None, :]
    return torch.from_numpy(positive & seen), torch.from_numpy(negative & seen)


def _box(size: tuple[int, int], least: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A random part of a picture with its proportions, of at least the share `least` of its area."""
    side = math.sqrt(rng.uniform(least, 1.0))
    width, height = (max(1, round(side * length)) for length in size)
    left, top = (int(rng.integers(0, free + 1)) for free in (size[0] - width, size[1] - height))
    return left, top, left + width, top + height


def _cut(view: View, square: Square, unreadable: dict[str, str]) -> NDArray[np.uint8] | None:
    """The square's pixels; None where it shows too little, or a raster is unreadable."""
    try:
        pixels, valid = read_square(
            view.rasters,
            square.lon,
            square.lat,
            square.side_m,
            square.size_px,
            square.rotation_deg,
            square.offset_m,
        )
    except GeofixError as error:
        # Errors of rasters begin with the path.
        named = (r.uri for r in view.rasters if error.message.startswith(r.uri.removeprefix("file://")))
        unreadable[next(named, view.rasters[0].uri)] = error.message
        return None
    return pixels if valid.mean() >= MIN_VALID else None


def _centres(squares: list[Square]) -> tuple[Floats, Floats]:
    """Longitudes and latitudes in degrees of the squares' centres."""
    lon, lat, turn, right, up = (
        np.array(values)
        for values in zip(
            *((s.lon, s.lat, math.radians(s.rotation_deg), *s.offset_m) for s in squares), strict=True
        )
    )
    east = right * np.cos(turn) + up * np.sin(turn)
    north = -right * np.sin(turn) + up * np.cos(turn)
    return LocalFrame(lon, lat).to_lonlat(east, north)
