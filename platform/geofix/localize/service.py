"""Find where photos were taken: decode, encode, search in SQL, probabilities, credible regions, coverage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pgvector import HalfVector

from geofix import __version__
from geofix.codes.complete import complete_query
from geofix.codes.embed import EmbedReport, embed_images
from geofix.codes.embed_store import load_encoder
from geofix.codes.host_matrix import host_matrix
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries import cells as cell_queries
from geofix.database.queries import codes as code_queries
from geofix.database.queries import localizations as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import find_model_by_id
from geofix.errors import BadInputError, ServiceError
from geofix.ingest.formats.base import printable
from geofix.ingest.region_text import region_ewkb
from geofix.localize.confidence import ConfidenceFit, Posterior, posterior
from geofix.localize.credible import credible_regions
from geofix.localize.evidence import score_parts
from geofix.localize.kinds import known_position
from geofix.localize.positions import CENTRE, Mover, mass_within
from geofix.localizers.code_set import NAMES
from geofix.localizers.scope import ranges_inside
from geofix.models.encoder import Encoder
from geofix.settings import get_settings
from geofix.spatial import s2

MASSES = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Searcher:
    """A code set with everything that answering needs, loaded once and used for many photos.

    Attributes:
        code_set: Its row.
        encoder: Ground encoder of its model.
        matrix: All its codes, for probabilities.
        fit: Temperature and coverage, None when the set was never calibrated.
    """

    code_set: CodeSet
    encoder: Encoder
    matrix: CellMatrix
    fit: ConfidenceFit | None

    def mover(self, position: str) -> Mover:
        """The way to the position that is asked for; see `Mover.of`."""
        temperature = None if self.fit is None else self.fit.temperature * self.code_set.scale
        return Mover.of(position, self.code_set, self.matrix, temperature)

    @classmethod
    def load(cls, conn: Connection, name: str) -> Searcher:
        """Read codes and weights of a ready code set.

        Raises:
            NotFoundError: No ready code set has the name.
        """
        code_set = code_queries.find_ready(conn, name)
        model = find_model_by_id(conn, code_set.model_id)
        matrix = host_matrix(conn, code_set)
        fit = ConfidenceFit.from_dict(code_set.calibration) if code_set.calibration else None
        return cls(code_set, load_encoder(model, "ground"), matrix, fit)


def localize_photos(
    conn: Connection,
    photos: Sequence[Path],
    code_set: str,
    *,
    within: str | None = None,
    k: int = 10,
    position: str = "centre",
    searcher: Searcher | None = None,
) -> list[dict[str, Any]]:
    """Answer each photo with ranked candidates; the caller commits.

    Every answer leaves a row in `query` and in `audit`, without the photo. A photo that cannot be read gets
    an `error` in place of an answer, and the others are answered.

    Args:
        conn: Open connection of the writer or owner.
        photos: Image files.
        code_set: Name of a ready code set.
        within: Search only inside this region (LEVEL:CODE, file or WKT).
        k: Candidates per photo.
        position: What the one position of an answer is, one of `kinds.POSITIONS`.
        searcher: Loaded before, to answer many calls.

    Returns:
        One document per photo, in order, as `geofix localize --json` prints.

    Raises:
        UsageError: There is no such position.
        BadInputError: No photo was given or could be read at all, the region holds no cell, or the position
            needs probabilities and the code set has none.
    """
    known_position(position)
    if not photos:
        raise BadInputError("No photo was given.", hint="Name image files.")
    used = searcher or Searcher.load(conn, code_set)
    mover = used.mover(position)
    region = None if within is None else region_ewkb(conn, within)
    ranges = None if region is None else ranges_inside(used.matrix.ids, shapely.from_wkb(region))
    if ranges is not None and not len(ranges):
        raise BadInputError(
            f"Code set {code_set} has no cell inside {within!r}.",
            hint="Search elsewhere, or build codes for the region.",
        )
    report = EmbedReport()
    vectors: dict[int, NDArray[Any]] = {}
    for keys, found in embed_images(
        used.encoder, enumerate(photos), report=report, total=len(photos), label="photos"
    ):
        vectors.update(zip(keys, found, strict=True))
    failures = {int(key): reason for key, reason in report.failures}
    if not vectors:
        raise BadInputError(
            f"{photos[0]} cannot be read: {failures.get(0, 'no reason').removesuffix('.')}.",
            hint="Give image files.",
        )
    return [
        _answer(conn, used, photo, vectors[i], k, region, ranges, mover)
        if i in vectors
        else {"photo": str(photo), "error": failures.get(i, "not embedded")}
        for i, photo in enumerate(photos)
    ]


def _answer(
    conn: Connection,
    used: Searcher,
    photo: Path,
    vector: NDArray[Any],
    k: int,
    region: bytes | None,
    ranges: NDArray[np.int64] | None,
    mover: Mover = CENTRE,
) -> dict[str, Any]:
    """Search, weigh and store one photo."""
    half = np.asarray(vector, np.float16)
    rows = queries.search(conn, HalfVector(half), k, used.code_set.name, region)
    if not rows:  # the searcher was loaded earlier
        raise ServiceError(
            f"Code set {used.code_set.name} has no cell there any more.",
            hint="Was it replaced meanwhile, or is a shard down? See `geofix shards check`, then ask again.",
        )
    completed = complete_query(half.astype(np.float32))
    chances = None
    finest = min(get_settings().finest_level, used.code_set.level)
    if used.fit is not None:
        chances = coarsened(posterior(used.matrix, completed, used.fit.temperature, ranges), finest)
    candidates = _candidates(rows, finest, chances)
    countries = cell_queries.countries_at(
        conn, [item["lon"] for item in candidates], [item["lat"] for item in candidates]
    )
    cells = [int(cell) for cell in s2.from_token(np.array([item["s2_token"] for item in candidates]))]
    parts = score_parts(conn, used.code_set, used.matrix, half, cells)
    candidates = [
        {**item, "region": code, "parts": parts.get(cell)}
        for item, code, cell in zip(candidates, countries, cells, strict=True)
    ]
    lon, lat = candidates[0]["lon"], candidates[0]["lat"]
    if mover.localizer is not None:
        lon, lat = mover.position(half, ranges, get_settings().finest_level)
    best_score = rows[0][5] / used.code_set.scale
    in_coverage = None if used.fit is None else bool(used.fit.coverage.in_coverage([best_score])[0])
    answer = {
        "photo": str(photo),
        "position": {"lon": lon, "lat": lat},
        "position_kind": mover.kind,
        "position_note": mover.note,
        "confidence_200m": None if chances is None else mass_within(chances, lon, lat),
        "candidates": candidates,
        "credible": {} if chances is None else _credible(chances),
        "search": {"method": rows[0][6], "cells_in_scope": rows[0][7]},
        "in_coverage": in_coverage,
        "code_set": used.code_set.name,
    }
    _store(conn, used, photo, k, region, answer)
    return answer


def _credible(chances: Posterior) -> dict[str, Any]:
    """Area, number of cells and outline of the region that holds each mass, by percent."""
    return {
        f"{100 * item.mass:.0f}": {
            "km2": item.km2,
            "cells": len(item.ids),
            "geojson": shapely.geometry.mapping(shapely.set_precision(item.polygon(), 1e-7)),
        }
        for item in credible_regions(chances, MASSES)
    }


def coarsened(fine: Posterior, level: int) -> Posterior:
    """The same probabilities by cells of a level; unchanged where the cells are no finer."""
    if not len(fine.ids) or int(s2.level(fine.ids).max()) <= level:
        return fine
    ids, place = np.unique(s2.parent(fine.ids, level), return_inverse=True)
    probability = np.bincount(place, weights=fine.probability, minlength=len(ids)).astype(np.float64)
    return Posterior(ids, probability, fine.best_score)


def _candidates(
    rows: Sequence[queries.SearchRow], finest: int, chances: Posterior | None
) -> list[dict[str, Any]]:
    """Candidates no finer than the operator allows: the first of each cell of the finest level, ranked anew.

    A cell's probability is that of all cells in it, whether they are among the candidates or not.
    """
    ids = np.array([row[1] for row in rows], np.int64)
    ids = s2.parent(ids, np.minimum(s2.level(ids), finest))
    first = np.sort(np.unique(ids, return_index=True)[1])
    lon, lat = s2.center(ids)
    tokens = s2.token(ids)
    probability = None if chances is None else chances.of(ids)
    return [
        {
            "rank": rank,
            "s2_token": str(tokens[i]),
            "lon": float(lon[i]),
            "lat": float(lat[i]),
            "score": rows[i][5],
            "probability": None if probability is None else float(probability[i]),
        }
        for rank, i in enumerate(first.tolist(), start=1)
    ]


def _store(
    conn: Connection, used: Searcher, photo: Path, k: int, region: bytes | None, answer: dict[str, Any]
) -> None:
    """Keep the answer and who asked; the photo's name stays only when photos may be kept."""
    keep = get_settings().keep_query_photos
    digest = hashlib.sha256(photo.read_bytes()).digest()
    localizer = NAMES.get(used.code_set.recipe, used.code_set.recipe)
    stored = {key: value for key, value in answer.items() if key not in ("photo", "credible")}
    query_id = queries.store_query(
        conn,
        {
            "photo_sha256": digest,
            "photo_name": printable(photo.name) if keep else None,
            "code_set_id": used.code_set.code_set_id,
            "localizer": localizer,
            "k": k,
            "region": region,
            "search_method": answer["search"]["method"],
            "cells_in_scope": answer["search"]["cells_in_scope"],
            "in_coverage": answer["in_coverage"],
            "software_version": __version__,
            "answer": stored,
        },
    )
    queries.audit(
        conn, "localize", "query", str(query_id), {"code_set": used.code_set.name, "sha256": digest.hex()}
    )
    answer["query_id"] = query_id
