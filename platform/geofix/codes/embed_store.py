"""Embed what a model has not embedded yet, photos or aerial tiles, and store it batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from geofix.codes.embed import EmbedReport, Loader, embed_images
from geofix.database.engine import Connection
from geofix.database.queries import models as model_queries
from geofix.database.queries.embed_work import Work, count_work, work_pages
from geofix.database.queries.leaves import Parent
from geofix.database.queries.models import ModelRow
from geofix.errors import BadInputError
from geofix.imagery.raster import read_square
from geofix.imagery.sources import RasterSource, SourceKind
from geofix.models.encoder import Encoder
from geofix.models.registry import choose_device, load_model
from geofix.settings import get_settings
from geofix.spatial import s2

Kind = Literal["photos", "aerial"]
_STORE = 1024  # vectors per transaction: what a kill can lose
_FAILURES = 100  # told; all are in the log


@dataclass(frozen=True)
class EmbedResult:
    """What one run of `embed` did.

    Attributes:
        embedded: Vectors stored now.
        skipped: Vectors that were there before.
        failed: Items that could not be read; they are tried again by the next run.
        per_second: Vectors per second of wall time.
        failures: (key, reason) of the first hundred failures.
    """

    embedded: int
    skipped: int
    failed: int
    per_second: float
    failures: list[tuple[str, str]]


def load_encoder(model: ModelRow, role: str, device: str | None = None) -> Encoder:
    """The encoder of a registered model on the device of the settings, its weights checked by hash.

    Raises:
        BadInputError: The model directory no longer holds the weights that were registered.
    """
    loaded = load_model(Path(model.directory_uri), choose_device(device or get_settings().device))
    if loaded.sha256 != model.weights_sha256:
        raise BadInputError(
            f"{model.directory_uri} holds weights {str(loaded.sha256)[:12]}, "
            f"model {model.name} was registered with {model.weights_sha256[:12]}.",
            hint="Register the new weights under a new name: embeddings of two models must never mix.",
        )
    return loaded.encoder(role)


def embed_all(
    conn: Connection,
    model: ModelRow,
    kind: Kind,
    *,
    datasets: list[str] | None = None,
    batch_size: int = 32,
    workers: int = 0,
    encoder: Encoder | None = None,
    span: tuple[int, int] | None = None,
) -> EmbedResult:
    """Embed everything of a kind that the model has not embedded yet; commits every thousand vectors.

    A run that is killed loses at most its last thousand; the next run goes on from there.

    Args:
        conn: Open connection of the writer or owner.
        model: A registered model.
        kind: `photos` or `aerial`.
        datasets: Only these data sets; None takes all.
        batch_size: Items per forward pass.
        workers: Decoding threads; 0 takes the setting.
        encoder: Used instead of loading the model's own.
        span: Only pictures whose S2 id lies between these two, both included.

    Raises:
        NotFoundError: A data set does not exist.
    """
    if datasets is not None:
        model_queries.require_datasets(conn, datasets, kind)
    work = Work(model.model_id, kind, datasets, span)
    total, left = count_work(conn, work)
    conn.commit()
    report = EmbedReport()
    stored, failures = 0, list[tuple[str, str]]()
    if left:
        used = encoder or load_encoder(model, "ground" if kind == "photos" else "aerial")
        parent: Parent = "photo_embedding" if kind == "photos" else "aerial_embedding"
        batches = embed_images(
            used,
            _items(conn, model, work, lambda: _tell(report, failures)),
            batch_size=batch_size,
            workers=workers,
            total=left,
            report=report,
            label=f"embed {kind}",
        )
        for rows in _gathered(batches):
            stored += model_queries.add_embeddings(conn, parent, model.model_id, rows)
            conn.commit()
            _tell(report, failures)
        _tell(report, failures)
        model_queries.analyze_embeddings(conn, parent, model.model_id)
        conn.commit()
    return EmbedResult(stored, total - left, report.failed, round(report.per_second, 1), failures)


def _tell(report: EmbedReport, failures: list[tuple[str, str]]) -> None:
    """Take the failures since the last call, as long as they are told; the rest is in the log."""
    taken = report.take_failures()[: _FAILURES - len(failures)]
    failures += [(str(key), reason) for key, reason in taken]


def _items(
    conn: Connection, model: ModelRow, work: Work, on_page: Callable[[], None]
) -> Iterator[tuple[int, Loader]]:
    """Keys with their loaders, read page by page; no transaction is open while a page is worked on."""
    size = load_size(model)
    for page in work_pages(conn, work):
        on_page()
        if work.kind == "photos":
            conn.commit()
            yield from ((photo_id, _photo_source(uri)) for photo_id, _, uri in page)
            continue
        rows = model_queries.raster_rows(conn, sorted({item for tile in page for item in tile[3]}))
        conn.commit()
        rasters = {
            key: RasterSource.from_row(uri, cast("SourceKind", kind), crs, reading)
            for key, uri, kind, crs, reading in rows
        }
        for tile_id, s2_id, side_m, raster_ids in page:
            yield tile_id, tile_loader(s2_id, side_m, [rasters[item] for item in raster_ids], size)


def load_size(model: ModelRow) -> int:
    """Pixels per side that an aerial tile is cut at: what the aerial encoder's transform will keep.

    Roles that share one encoder are described by its first role, and a model without any description by its
    row.
    """
    described = model.config.get("aerial") or model.config.get("ground") or {}
    size = (described.get("input") or model.input_transform).get("size", 224)
    return int(max(size) if isinstance(size, list | tuple) else size)


def tile_loader(
    s2_id: int, side_m: float, sources: list[RasterSource], size_px: int
) -> Callable[[], NDArray[np.uint8]]:
    """A function that cuts the north-up tile of a cell from its rasters."""

    def cut() -> NDArray[np.uint8]:
        lon, lat = s2.center(np.array([s2_id], np.int64))
        rgb, valid = read_square(sources, float(lon[0]), float(lat[0]), side_m, size_px)
        if not valid.any():
            raise BadInputError(f"the tile of cell {s2.token(np.array([s2_id]))[0]} holds no pixel")
        return rgb

    return cut


def _photo_source(uri: str) -> Loader:
    return Path(uri.removeprefix("file://")) if uri.startswith(("file://", "/")) else uri


def _gathered(
    batches: Iterable[tuple[list[int], NDArray[Any]]],
) -> Iterator[list[tuple[int, NDArray[Any]]]]:
    """Batches of the encoder, put together to transactions."""
    rows: list[tuple[int, NDArray[Any]]] = []
    for keys, vectors in batches:
        rows.extend(zip(keys, vectors, strict=True))
        if len(rows) >= _STORE:
            yield rows
            rows = []
    if rows:
        yield rows
