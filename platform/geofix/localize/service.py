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
from geofix.codes.matrix import CellMatrix
from geofix.database.engine import Connection
from geofix.database.queries import cells as cell_queries
from geofix.database.queries import codes as code_queries
from geofix.database.queries import localizations as queries
from geofix.database.queries.codes import CodeSet
from geofix.database.queries.models import find_model_by_id
from geofix.errors import BadInputError, NotFoundError
from geofix.ingest.region_text import region_ewkb
from geofix.localize.confidence import ConfidenceFit, posterior
from geofix.localize.credible import credible_regions
from geofix.localizers.code_set import NAMES
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

    @classmethod
    def load(cls, conn: Connection, name: str) -> Searcher:
        """Read codes and weights of a ready code set.

        Raises:
            NotFoundError: No ready code set has the name.
        """
        code_set = code_queries.find_code_set(conn, name)
        if code_set.state not in ("ready", "stale"):
            raise NotFoundError(f"Code set {name} is {code_set.state}.", hint="Wait, or build it again.")
        model = find_model_by_id(conn, code_set.model_id)
        matrix = CellMatrix.from_rows(*code_queries.read_codes(conn, code_set))
        fit = ConfidenceFit.from_dict(code_set.calibration) if code_set.calibration else None
        return cls(code_set, load_encoder(model, "ground"), matrix, fit)


def localize_photos(
    conn: Connection,
    photos: Sequence[Path],
    code_set: str,
    *,
    within: str | None = None,
    k: int = 10,
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
        searcher: Loaded before, to answer many calls.

    Returns:
        One document per photo, in order, as `geofix localize --json` prints.

    Raises:
        BadInputError: No photo could be read at all, or the region holds no cell.
    """
    used = searcher or Searcher.load(conn, code_set)
    region = None if within is None else region_ewkb(conn, within)
    ranges = None if region is None else _scope(used.matrix.ids, region)
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
            f"{photos[0]} cannot be read: {failures.get(0, 'no reason')}.", hint="Give image files."
        )
    return [
        _answer(conn, used, photo, vectors[i], k, region, ranges)
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
) -> dict[str, Any]:
    """Search, weigh and store one photo."""
    half = np.asarray(vector, np.float16)
    rows = queries.search(conn, HalfVector(half), k, used.code_set.name, region)
    completed = complete_query(half.astype(np.float32))
    chances, credible = _probabilities(used, completed, [row[1] for row in rows], ranges)
    countries = cell_queries.countries_at(conn, [row[3] for row in rows], [row[4] for row in rows])
    candidates = _coarsened(
        [
            {
                "rank": row[0],
                "s2_token": row[2],
                "lon": row[3],
                "lat": row[4],
                "score": row[5],
                "probability": None if chances is None else float(chances[i]),
                "region": countries[i],
            }
            for i, row in enumerate(rows)
        ],
        get_settings().finest_level,
    )
    best_score = rows[0][5] / used.code_set.scale
    in_coverage = None if used.fit is None else bool(used.fit.coverage.in_coverage([best_score])[0])
    answer = {
        "photo": str(photo),
        "position": {"lon": candidates[0]["lon"], "lat": candidates[0]["lat"]},
        "candidates": candidates,
        "credible": credible,
        "search": {"method": rows[0][6], "cells_in_scope": rows[0][7]},
        "in_coverage": in_coverage,
        "code_set": used.code_set.name,
    }
    _store(conn, used, photo, k, region, answer)
    return answer


def _probabilities(
    used: Searcher, completed: NDArray[np.float32], ids: list[int], ranges: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """Probability of the candidates, and the credible regions; none without a fitted temperature."""
    if used.fit is None:
        return None, {}
    found = posterior(used.matrix, completed, used.fit.temperature, ranges)
    regions = credible_regions(found, MASSES)
    credible: dict[str, Any] = {
        f"{100 * item.mass:.0f}": {"km2": item.km2, "cells": len(item.ids)} for item in regions
    }
    for item in regions:
        outline = shapely.set_precision(item.polygon(), 1e-7)
        credible[f"{100 * item.mass:.0f}"]["geojson"] = shapely.geometry.mapping(outline)
    return found.of(np.array(ids, np.int64)), credible


def _scope(ids: NDArray[np.int64], region: bytes) -> NDArray[np.int64]:
    """Closed id ranges (n, 2) of the cells whose centre lies in a region, from the sorted ids of a matrix."""
    shape = shapely.from_wkb(region)
    shapely.prepare(shape)
    lon, lat = s2.center(ids)
    inside = shapely.covers(shape, shapely.points(lon, lat))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return np.column_stack([ids[edges[0::2]], ids[edges[1::2] - 1]])


def _coarsened(candidates: list[dict[str, Any]], finest_level: int) -> list[dict[str, Any]]:
    """Candidates no finer than the operator allows: cells merged into their parents, ranked anew."""
    ids = s2.from_token([item["s2_token"] for item in candidates])
    levels = s2.level(ids)
    if not len(ids) or int(levels.max()) <= finest_level:
        return candidates
    parents = s2.parent(ids, finest_level)
    merged: dict[int, dict[str, Any]] = {}
    for item, parent in zip(candidates, parents.tolist(), strict=True):
        if parent not in merged:
            lon, lat = s2.center(np.array([parent], np.int64))
            place = {
                "s2_token": s2.token(np.array([parent], np.int64))[0],
                "lon": float(lon[0]),
                "lat": float(lat[0]),
            }
            merged[parent] = {**item, **place}
        elif item["probability"] is not None:
            merged[parent]["probability"] += item["probability"]
    return [{**item, "rank": rank} for rank, item in enumerate(merged.values(), start=1)]


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
            "photo_name": photo.name if keep else None,
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
