-- LICENCES
SELECT name, kind, licence, attribution FROM geofix.dataset ORDER BY name

-- FIND_DATASET
SELECT dataset_id, kind FROM geofix.dataset WHERE name = %(name)s FOR UPDATE

-- LOCK_DATASET
SELECT pg_try_advisory_xact_lock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))

-- DELETE_DATASET
DELETE FROM geofix.dataset WHERE dataset_id = %(dataset_id)s

-- PHOTO_DATASETS
SELECT DISTINCT d.name FROM geofix.photo_record p JOIN geofix.dataset d USING (dataset_id) WHERE p.photo_id = ANY (%(ids)s)
ORDER BY 1

-- TABLES[0]
CREATE TEMP TABLE IF NOT EXISTS doomed_photo (
  photo_id bigint PRIMARY KEY, sequence_id bigint, s2_id bigint NOT NULL, uri text) ON COMMIT DELETE ROWS

-- TABLES[1]
CREATE TEMP TABLE IF NOT EXISTS doomed_tile (
  aerial_tile_id bigint PRIMARY KEY, level smallint NOT NULL, s2_id bigint NOT NULL) ON COMMIT DELETE ROWS

-- TABLES[2]
CREATE TEMP TABLE IF NOT EXISTS doomed_cell (
  level smallint, s2_id bigint, PRIMARY KEY (level, s2_id)) ON COMMIT DELETE ROWS

-- TABLES[3]
TRUNCATE pg_temp.doomed_photo, pg_temp.doomed_tile, pg_temp.doomed_cell

-- STAGE_PHOTOS
INSERT INTO pg_temp.doomed_photo SELECT photo_id, sequence_id, s2_id, uri FROM geofix.photo_record
WHERE photo_id = ANY (%(ids)s) FOR UPDATE

-- STAGE_PHOTOS_OF
INSERT INTO pg_temp.doomed_photo SELECT photo_id, sequence_id, s2_id, uri FROM geofix.photo_record
WHERE dataset_id = %(dataset_id)s FOR UPDATE

-- STAGE_TILES_OF
INSERT INTO pg_temp.doomed_tile SELECT aerial_tile_id, level, s2_id FROM geofix.aerial_tile
WHERE dataset_id = %(dataset_id)s FOR UPDATE

-- STAGE_CELLS
INSERT INTO pg_temp.doomed_cell
SELECT DISTINCT g.level, geofix.s2_parent(o.s2_id, g.level)
FROM (SELECT s2_id, 30 AS level FROM pg_temp.doomed_photo UNION ALL SELECT s2_id, level FROM pg_temp.doomed_tile) AS o
JOIN (SELECT DISTINCT level FROM geofix.grid_cell) AS g ON g.level <= o.level

-- UNKNOWN_PHOTOS
SELECT u.id FROM unnest(%(ids)s::bigint[]) AS u(id)
WHERE NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = u.id) ORDER BY 1

-- ANALYZE
ANALYZE pg_temp.doomed_photo, pg_temp.doomed_tile, pg_temp.doomed_cell

-- FLAG_CODE_SETS_OF_PHOTOS
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

-- FLAG_CODE_SETS_OF_TILES
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

-- NOTE_MODELS
WITH learned AS (
  SELECT sp.snapshot_id, count(*) AS photos FROM geofix.snapshot_photo sp JOIN pg_temp.doomed_photo USING (photo_id)
  WHERE sp.split IN ('train', 'val') GROUP BY 1
)
UPDATE geofix.model m SET metrics = m.metrics || jsonb_build_object(
  'deleted_photos', coalesce((m.metrics ->> 'deleted_photos')::bigint, 0) + l.photos,
  'prototypes_stale', EXISTS (SELECT FROM geofix.prototype p WHERE p.model_id = m.model_id))
FROM learned l WHERE l.snapshot_id = m.snapshot_id RETURNING m.name

-- NOTE_SNAPSHOTS
WITH held AS (
  SELECT sp.snapshot_id, count(*) AS photos FROM geofix.snapshot_photo sp JOIN pg_temp.doomed_photo USING (photo_id)
  GROUP BY 1
)
UPDATE geofix.snapshot s SET config = s.config || jsonb_build_object(
  'deleted_photos', coalesce((s.config ->> 'deleted_photos')::bigint, 0) + h.photos)
FROM held h WHERE h.snapshot_id = s.snapshot_id RETURNING s.uri

-- NOTE_EVALUATIONS
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

-- FLAG_PARTITIONS
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

-- DELETE_DERIVED['photo_embeddings']
DELETE FROM geofix.photo_embedding e USING pg_temp.doomed_photo d WHERE e.photo_id = d.photo_id

-- DELETE_DERIVED['predictions']
DELETE FROM geofix.prediction r USING pg_temp.doomed_photo d WHERE r.photo_id = d.photo_id

-- DELETE_DERIVED['evaluation_photos']
DELETE FROM geofix.evaluation_photo e USING pg_temp.doomed_photo d WHERE e.photo_id = d.photo_id

-- DELETE_DERIVED['snapshot_photos']
DELETE FROM geofix.snapshot_photo s USING pg_temp.doomed_photo d WHERE s.photo_id = d.photo_id

-- DELETE_DERIVED['photo_regions']
DELETE FROM geofix.photo_region r USING pg_temp.doomed_photo d WHERE r.photo_id = d.photo_id

-- DELETE_DERIVED['photos']
DELETE FROM geofix.photo_record p USING pg_temp.doomed_photo d WHERE p.photo_id = d.photo_id

-- DELETE_DERIVED['sequences']
DELETE FROM geofix.sequence s WHERE s.sequence_id IN (SELECT sequence_id FROM pg_temp.doomed_photo)
  AND NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.sequence_id = s.sequence_id)

-- DELETE_DERIVED['aerial_embeddings']
DELETE FROM geofix.aerial_embedding e USING pg_temp.doomed_tile d WHERE e.aerial_tile_id = d.aerial_tile_id

-- DELETE_DERIVED['aerial_tiles']
DELETE FROM geofix.aerial_tile t USING pg_temp.doomed_tile d WHERE t.aerial_tile_id = d.aerial_tile_id

-- RECOUNT_CELLS
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

-- DELETE_EMPTY_CELLS
DELETE FROM geofix.grid_cell c USING pg_temp.doomed_cell d
WHERE c.level = d.level AND c.s2_id = d.s2_id AND c.photos = 0 AND c.aerial_tiles = 0

-- COUNTS_OF['rejects']
SELECT count(*) FROM geofix.reject WHERE dataset_id = %(dataset_id)s

-- COUNTS_OF['aerial_rasters']
SELECT count(*) FROM geofix.aerial_raster WHERE dataset_id = %(dataset_id)s

-- COUNTS_OF['regions']
SELECT count(*) FROM geofix.region WHERE dataset_id = %(dataset_id)s

-- COUNTS_OF['photo_regions']
SELECT count(*) FROM geofix.photo_region pr JOIN geofix.region r USING (region_id) WHERE r.dataset_id = %(dataset_id)s

-- RASTER_URIS
SELECT uri FROM geofix.aerial_raster WHERE dataset_id = %(dataset_id)s

-- PHOTO_URIS
SELECT uri FROM pg_temp.doomed_photo WHERE uri IS NOT NULL

-- STILL_USED
SELECT uri FROM geofix.photo_record WHERE uri = ANY (%(uris)s)
UNION SELECT uri FROM geofix.aerial_raster WHERE uri = ANY (%(uris)s)

-- FORGET_STAGES
DELETE FROM geofix.stage_run WHERE pipeline IN (
  SELECT pipeline FROM geofix.stage_run
  WHERE pipeline = %(name)s
     OR jsonb_path_exists(result, '$.** ? (@ == $name)', jsonb_build_object('name', %(name)s::text)))

-- DELETE_QUERY
DELETE FROM geofix.query WHERE query_id = %(query_id)s

-- SCRUB_AUDIT
UPDATE geofix.audit SET detail = detail - 'sha256' - 'photo'
WHERE object_kind = 'query' AND object_id = %(query_id)s::text AND detail ?| ARRAY['sha256', 'photo']
