"""Statements that remove photos, data sets and queries with everything derived from them, set by set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from geofix.database.engine import Connection

LICENCES = "SELECT name, kind, licence, attribution FROM geofix.dataset ORDER BY name"
FIND_DATASET = "SELECT dataset_id, kind FROM geofix.dataset WHERE name = %(name)s FOR UPDATE"
# The key that `ingest photos` holds while it loads the data set.
LOCK_DATASET = "SELECT pg_try_advisory_xact_lock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))"
DELETE_DATASET = "DELETE FROM geofix.dataset WHERE dataset_id = %(dataset_id)s"
PHOTO_DATASETS = """
SELECT DISTINCT d.name FROM geofix.photo_record p JOIN geofix.dataset d USING (dataset_id) WHERE p.photo_id = ANY (%(ids)s)
ORDER BY 1
"""

TABLES = (
    """
CREATE TEMP TABLE IF NOT EXISTS doomed_photo (
  photo_id bigint PRIMARY KEY, sequence_id bigint, s2_id bigint NOT NULL, uri text) ON COMMIT DELETE ROWS
""",
    """
CREATE TEMP TABLE IF NOT EXISTS doomed_tile (
  aerial_tile_id bigint PRIMARY KEY, level smallint NOT NULL, s2_id bigint NOT NULL) ON COMMIT DELETE ROWS
""",
    """
CREATE TEMP TABLE IF NOT EXISTS doomed_cell (
  level smallint, s2_id bigint, PRIMARY KEY (level, s2_id)) ON COMMIT DELETE ROWS
""",
    "TRUNCATE pg_temp.doomed_photo, pg_temp.doomed_tile, pg_temp.doomed_cell",
)
STAGE_PHOTOS = """
INSERT INTO pg_temp.doomed_photo SELECT photo_id, sequence_id, s2_id, uri FROM geofix.photo_record
WHERE photo_id = ANY (%(ids)s) FOR UPDATE
"""
STAGE_PHOTOS_OF = """
INSERT INTO pg_temp.doomed_photo SELECT photo_id, sequence_id, s2_id, uri FROM geofix.photo_record
WHERE dataset_id = %(dataset_id)s FOR UPDATE
"""
STAGE_TILES_OF = """
INSERT INTO pg_temp.doomed_tile SELECT aerial_tile_id, level, s2_id FROM geofix.aerial_tile
WHERE dataset_id = %(dataset_id)s FOR UPDATE
"""
# Cells of the grid to be counted again; a tile counts in cells of its own level and coarser ones.
STAGE_CELLS = """
INSERT INTO pg_temp.doomed_cell
SELECT DISTINCT g.level, geofix.s2_parent(o.s2_id, g.level)
FROM (SELECT s2_id, 30 AS level FROM pg_temp.doomed_photo UNION ALL SELECT s2_id, level FROM pg_temp.doomed_tile) AS o
JOIN (SELECT DISTINCT level FROM geofix.grid_cell) AS g ON g.level <= o.level
"""
UNKNOWN_PHOTOS = """
SELECT u.id FROM unnest(%(ids)s::bigint[]) AS u(id)
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = u.id) ORDER BY 1
"""
ANALYZE = "ANALYZE pg_temp.doomed_photo, pg_temp.doomed_tile, pg_temp.doomed_cell"

# A code set is stale when its snapshot held a photo, or when it holds prototypes of a model that learned from one.
FLAG_CODE_SETS_OF_PHOTOS = """
WITH held AS (
  SELECT sp.snapshot_id, sp.split, count(*) AS photos
  FROM geofix.snapshot_photo sp JOIN pg_temp.doomed_photo USING (photo_id) GROUP BY 1, 2
), told AS (
  SELECT snapshot_id, sum(photos)::bigint AS photos, string_agg(split || ' ' || photos, ', ' ORDER BY split) AS splits
  FROM held GROUP BY 1
), concerned AS (
  SELECT DISTINCT ON (s.code_set_id) s.code_set_id, t.splits,
         coalesce((s.config ->> 'deleted_photos')::bigint, 0) + t.photos AS photos
  FROM geofix.code_set s JOIN geofix.model m USING (model_id)
  JOIN told t ON t.snapshot_id = s.snapshot_id
    OR (t.snapshot_id = m.snapshot_id AND s.recipe IN ('prototype', 'hybrid'))
  WHERE s.state IN ('building', 'ready', 'stale')
  ORDER BY s.code_set_id, t.snapshot_id = s.snapshot_id DESC
)
UPDATE geofix.code_set s SET
  state = 'stale', config = s.config || jsonb_build_object('deleted_photos', c.photos),
  stale_reason = format('%s photos of its snapshot were deleted (last: %s)', c.photos, c.splits)
FROM concerned c WHERE c.code_set_id = s.code_set_id RETURNING s.name
"""
# A code set is stale when the code of a cell was made from a tile that its model had embedded.
FLAG_CODE_SETS_OF_TILES = """
WITH embedded AS (
  SELECT e.model_id, d.s2_id, d.level FROM geofix.aerial_embedding e JOIN pg_temp.doomed_tile d USING (aerial_tile_id)
), concerned AS (
  SELECT s.code_set_id, count(*) + coalesce((s.config ->> 'deleted_tiles')::bigint, 0) AS tiles
  FROM geofix.code_set s
  JOIN embedded e ON e.model_id = s.model_id AND e.level >= s.level
  JOIN geofix.cell_code c
    ON c.code_set_id = s.code_set_id AND c.s2_id = geofix.s2_parent(e.s2_id, s.level) AND c.has_aerial
  WHERE s.state IN ('building', 'ready', 'stale') GROUP BY s.code_set_id
)
UPDATE geofix.code_set s SET
  state = 'stale', config = s.config || jsonb_build_object('deleted_tiles', c.tiles),
  stale_reason = format('%s aerial tiles that it was built from were deleted', c.tiles)
FROM concerned c WHERE c.code_set_id = s.code_set_id RETURNING s.name
"""
# What a model learned from a photo stays in its weights until it is trained again: its row says so.
NOTE_MODELS = """
WITH learned AS (
  SELECT sp.snapshot_id, count(*) AS photos FROM geofix.snapshot_photo sp JOIN pg_temp.doomed_photo USING (photo_id)
  WHERE sp.split IN ('train', 'val') GROUP BY 1
)
UPDATE geofix.model m SET metrics = m.metrics || jsonb_build_object(
  'deleted_photos', coalesce((m.metrics ->> 'deleted_photos')::bigint, 0) + l.photos,
  'prototypes_stale', EXISTS (SELECT FROM geofix.prototype p WHERE p.model_id = m.model_id))
FROM learned l WHERE l.snapshot_id = m.snapshot_id RETURNING m.name
"""
NOTE_SNAPSHOTS = """
WITH held AS (
  SELECT sp.snapshot_id, count(*) AS photos FROM geofix.snapshot_photo sp JOIN pg_temp.doomed_photo USING (photo_id)
  GROUP BY 1
)
UPDATE geofix.snapshot s SET config = s.config || jsonb_build_object(
  'deleted_photos', coalesce((s.config ->> 'deleted_photos')::bigint, 0) + h.photos)
FROM held h WHERE h.snapshot_id = s.snapshot_id RETURNING s.uri
"""
NOTE_EVALUATIONS = """
WITH asked AS (
  SELECT ep.evaluation_id, count(*) AS photos
  FROM geofix.evaluation_photo ep JOIN pg_temp.doomed_photo USING (photo_id) GROUP BY 1
)
UPDATE geofix.evaluation e SET
  n = greatest(0, e.n - a.photos),
  config = e.config || jsonb_build_object(
    'deleted_photos', coalesce((e.config ->> 'deleted_photos')::bigint, 0) + a.photos),
  metrics = e.metrics || jsonb_build_object('stale', format('%s photos were deleted since', a.photos))
FROM asked a WHERE a.evaluation_id = e.evaluation_id RETURNING e.name
"""

# A partition is stale when it counted a photo: a training photo of its snapshot, else one of its data sets.
FLAG_PARTITIONS = """
WITH concerned AS (
  SELECT p.partition_id, count(*) AS photos
  FROM geofix.partition p JOIN geofix.snapshot_photo sp ON sp.snapshot_id = p.snapshot_id AND sp.split = 'train'
  JOIN pg_temp.doomed_photo d ON d.photo_id = sp.photo_id GROUP BY 1
  UNION ALL
  SELECT p.partition_id, count(*)
  FROM geofix.partition p JOIN geofix.photo_record r
    ON r.dataset_id = ANY (p.dataset_ids) AND r.ingested_at <= p.created_at
  JOIN pg_temp.doomed_photo d ON d.photo_id = r.photo_id
  WHERE p.snapshot_id IS NULL GROUP BY 1
)
UPDATE geofix.partition p SET stale_reason = format('%s photos that it was made from were deleted', c.photos)
FROM concerned c WHERE c.partition_id = p.partition_id RETURNING p.name
"""

# Children first, set by set: the cascade would go photo by photo.
DELETE_DERIVED = {
    "photo_embeddings": "DELETE FROM geofix.photo_embedding e USING pg_temp.doomed_photo d WHERE e.photo_id = d.photo_id",
    "predictions": "DELETE FROM geofix.prediction r USING pg_temp.doomed_photo d WHERE r.photo_id = d.photo_id",
    "evaluation_photos": "DELETE FROM geofix.evaluation_photo e USING pg_temp.doomed_photo d WHERE e.photo_id = d.photo_id",
    "snapshot_photos": "DELETE FROM geofix.snapshot_photo s USING pg_temp.doomed_photo d WHERE s.photo_id = d.photo_id",
    "photo_regions": "DELETE FROM geofix.photo_region r USING pg_temp.doomed_photo d WHERE r.photo_id = d.photo_id",
    "photos": "DELETE FROM geofix.photo_record p USING pg_temp.doomed_photo d WHERE p.photo_id = d.photo_id",
    "sequences": """
DELETE FROM geofix.sequence s WHERE s.sequence_id IN (SELECT sequence_id FROM pg_temp.doomed_photo)
  AND NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.sequence_id = s.sequence_id)
""",
    "aerial_embeddings": """
DELETE FROM geofix.aerial_embedding e USING pg_temp.doomed_tile d WHERE e.aerial_tile_id = d.aerial_tile_id
""",
    "aerial_tiles": "DELETE FROM geofix.aerial_tile t USING pg_temp.doomed_tile d WHERE t.aerial_tile_id = d.aerial_tile_id",
}
RECOUNT_CELLS = """
UPDATE geofix.grid_cell c SET photos = p.photos, first_captured_at = p.first_at, last_captured_at = p.last_at,
       aerial_tiles = t.tiles, last_aerial = t.last_aerial
FROM pg_temp.doomed_cell d
CROSS JOIN LATERAL geofix.s2_range(d.s2_id) AS r
CROSS JOIN LATERAL (
  SELECT count(*) AS photos, min(captured_at) AS first_at, max(captured_at) AS last_at
  FROM geofix.photo_record WHERE s2_id BETWEEN r.lo AND r.hi) AS p
CROSS JOIN LATERAL (
  SELECT count(*) AS tiles, max(captured_at) AS last_aerial
  FROM geofix.aerial_tile a WHERE a.s2_id BETWEEN r.lo AND r.hi AND a.level >= d.level) AS t
WHERE c.level = d.level AND c.s2_id = d.s2_id
"""
DELETE_EMPTY_CELLS = """
DELETE FROM geofix.grid_cell c USING pg_temp.doomed_cell d
WHERE c.level = d.level AND c.s2_id = d.s2_id AND c.photos = 0 AND c.aerial_tiles = 0
"""
COUNTS_OF = {
    "rejects": "SELECT count(*) FROM geofix.reject WHERE dataset_id = %(dataset_id)s",
    "aerial_rasters": "SELECT count(*) FROM geofix.aerial_raster WHERE dataset_id = %(dataset_id)s",
    "regions": "SELECT count(*) FROM geofix.region WHERE dataset_id = %(dataset_id)s",
    "photo_regions": """
SELECT count(*) FROM geofix.photo_region pr JOIN geofix.region r USING (region_id) WHERE r.dataset_id = %(dataset_id)s
""",
}
RASTER_URIS = "SELECT uri FROM geofix.aerial_raster WHERE dataset_id = %(dataset_id)s"
PHOTO_URIS = "SELECT uri FROM pg_temp.doomed_photo WHERE uri IS NOT NULL"
STILL_USED = """
SELECT uri FROM geofix.photo_record WHERE uri = ANY (%(uris)s)
UNION SELECT uri FROM geofix.aerial_raster WHERE uri = ANY (%(uris)s)
"""
# Stages of a pipeline are skipped while its inputs are the same; a data set that is gone must be loaded again.
FORGET_STAGES = """
DELETE FROM geofix.stage_run WHERE pipeline IN (
  SELECT pipeline FROM geofix.stage_run
  WHERE pipeline = %(name)s
     OR jsonb_path_exists(result, '$.** ? (@ == $name)', jsonb_build_object('name', %(name)s::text)))
"""
DELETE_QUERY = "DELETE FROM geofix.query WHERE query_id = %(query_id)s"
# Who asked and when stays; what would lead back to the photo goes.
SCRUB_AUDIT = """
UPDATE geofix.audit SET detail = detail - 'sha256' - 'photo'
WHERE object_kind = 'query' AND object_id = %(query_id)s::text AND detail ?| ARRAY['sha256', 'photo']
"""


@dataclass(frozen=True)
class Licence:
    """What must travel with everything made from a data set."""

    dataset: str
    kind: str
    licence: str | None
    attribution: str | None

    def as_record(self) -> dict[str, str | None]:
        """The same as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.dataset} ({self.kind}): {self.licence or 'licence not recorded'}; {self.attribution or 'no attribution recorded'}"


def licences(conn: Connection) -> list[Licence]:
    """Licence and attribution of every data set, by name."""
    return [Licence(*row) for row in conn.execute(LICENCES)]


def find_dataset(conn: Connection, name: str) -> tuple[int, str] | None:
    """Id and kind of a data set, locked against changes; None when there is none."""
    row = conn.execute(FIND_DATASET, {"name": name}).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def lock_dataset(conn: Connection, dataset_id: int) -> bool:
    """Keep `ingest photos` out until the transaction ends; False when it is at work."""
    row = conn.execute(LOCK_DATASET, {"dataset_id": dataset_id}).fetchone()
    return bool(row and row[0])


def stage(conn: Connection, *, photo_ids: Sequence[int] | None = None, dataset_id: int | None = None) -> int:
    """Write down what is to go: some photos, or all photos and tiles of a data set; returns how many."""
    for statement in TABLES:
        conn.execute(statement)
    if dataset_id is None:
        staged = conn.execute(STAGE_PHOTOS, {"ids": list(photo_ids or ())}).rowcount
    else:
        staged = sum(
            conn.execute(statement, {"dataset_id": dataset_id}).rowcount
            for statement in (STAGE_PHOTOS_OF, STAGE_TILES_OF)
        )
    conn.execute(STAGE_CELLS)
    conn.execute(ANALYZE)
    return staged


def unknown_photos(conn: Connection, photo_ids: Sequence[int]) -> list[int]:
    """Ids that no photo has."""
    return [row[0] for row in conn.execute(UNKNOWN_PHOTOS, {"ids": list(photo_ids)})]


def mark_derived(conn: Connection) -> dict[str, list[str]]:
    """Flag what was made from the staged rows and stays; names of each kind."""
    flagged = {*_names(conn, FLAG_CODE_SETS_OF_PHOTOS), *_names(conn, FLAG_CODE_SETS_OF_TILES)}
    return {
        "stale_code_sets": sorted(flagged),
        "models": _names(conn, NOTE_MODELS),
        "snapshots": _names(conn, NOTE_SNAPSHOTS),
        "evaluations": _names(conn, NOTE_EVALUATIONS),
        "partitions": _names(conn, FLAG_PARTITIONS),
    }


def delete_staged(conn: Connection) -> dict[str, int]:
    """Remove the staged rows with everything derived from them; rows removed per kind."""
    removed = {kind: conn.execute(statement).rowcount for kind, statement in DELETE_DERIVED.items()}
    conn.execute(RECOUNT_CELLS)
    removed["grid_cells"] = conn.execute(DELETE_EMPTY_CELLS).rowcount
    return removed


def count_of_dataset(conn: Connection, dataset_id: int) -> dict[str, int]:
    """Rows that go with the data set itself."""
    found = {}
    for kind, statement in COUNTS_OF.items():
        row = conn.execute(statement, {"dataset_id": dataset_id}).fetchone()
        found[kind] = int(row[0]) if row else 0
    return found


def delete_dataset_row(conn: Connection, dataset_id: int, name: str) -> int:
    """Remove the data set's row with its regions, rasters, sequences and rejects; returns stages forgotten."""
    conn.execute(DELETE_DATASET, {"dataset_id": dataset_id})
    return conn.execute(FORGET_STAGES, {"name": name}).rowcount


def datasets_of(conn: Connection, photo_ids: Sequence[int]) -> list[str]:
    """Names of the data sets that some photos belong to."""
    return [row[0] for row in conn.execute(PHOTO_DATASETS, {"ids": list(photo_ids)})]


def staged_uris(conn: Connection, dataset_id: int | None = None) -> list[str]:
    """Where the pixels of the staged photos, and of a data set's rasters, are."""
    found = [row[0] for row in conn.execute(PHOTO_URIS)]
    if dataset_id is not None:
        found += [row[0] for row in conn.execute(RASTER_URIS, {"dataset_id": dataset_id})]
    return sorted(set(found))


def still_used(conn: Connection, uris: Sequence[str]) -> set[str]:
    """Which of these files another row refers to."""
    return {row[0] for row in conn.execute(STILL_USED, {"uris": list(uris)})}


def delete_query(conn: Connection, query_id: int) -> dict[str, int]:
    """Remove a localization and what leads from the audit back to its photo."""
    queries = conn.execute(DELETE_QUERY, {"query_id": query_id}).rowcount
    scrubbed = conn.execute(SCRUB_AUDIT, {"query_id": query_id}).rowcount
    return {"queries": queries, "audit_rows_scrubbed": scrubbed}


def _names(conn: Connection, statement: str) -> list[str]:
    return sorted(row[0] for row in conn.execute(statement))
