-- ENSURE_DATASET
INSERT INTO dataset (name, kind, licence, attribution, source_uri)
VALUES (%(name)s, %(kind)s, %(licence)s, %(attribution)s, %(source_uri)s)
ON CONFLICT (name) DO UPDATE SET
    licence = coalesce(excluded.licence, dataset.licence),
    attribution = coalesce(excluded.attribution, dataset.attribution),
    source_uri = coalesce(excluded.source_uri, dataset.source_uri)
RETURNING dataset_id, kind

-- FIND_DATASET
SELECT dataset_id FROM dataset WHERE name = %(name)s AND kind = %(kind)s

-- KNOWN_RASTERS
SELECT uri, file_bytes, file_mtime_ns, sha256, coalesce(reading ->> 'options', '')
FROM aerial_raster WHERE dataset_id = %(dataset_id)s

-- TOUCH_RASTER
UPDATE aerial_raster SET file_bytes = %(file_bytes)s, file_mtime_ns = %(file_mtime_ns)s
WHERE dataset_id = %(dataset_id)s AND uri = %(uri)s

-- CREATE_STAGE
CREATE TEMP TABLE IF NOT EXISTS aerial_stage (
    uri text NOT NULL, kind text NOT NULL, sha256 bytea, file_bytes int8, file_mtime_ns int8, crs text NOT NULL,
    width int4, height int4, bands int2, dtype text, gsd_m float4 NOT NULL, captured_at date,
    reading jsonb NOT NULL, geom bytea NOT NULL
) ON COMMIT DELETE ROWS;
TRUNCATE aerial_stage

-- DELETE_STALE_TILES
DELETE FROM aerial_tile t USING aerial_raster r JOIN aerial_stage s ON s.uri = r.uri
WHERE r.dataset_id = %(dataset_id)s AND t.dataset_id = r.dataset_id AND r.aerial_raster_id = ANY (t.aerial_raster_ids)

-- MERGE_RASTERS
INSERT INTO aerial_raster (
    dataset_id, uri, kind, sha256, file_bytes, file_mtime_ns, crs, width, height, bands, dtype, gsd_m, captured_at,
    reading, geom)
SELECT %(dataset_id)s, uri, kind, sha256, file_bytes, file_mtime_ns, crs, width, height, bands, dtype, gsd_m,
       captured_at, reading, ST_Multi(ST_GeomFromEWKB(geom))
FROM aerial_stage
ON CONFLICT (dataset_id, uri) DO UPDATE SET
    kind = excluded.kind, sha256 = excluded.sha256, file_bytes = excluded.file_bytes,
    file_mtime_ns = excluded.file_mtime_ns, crs = excluded.crs, width = excluded.width, height = excluded.height,
    bands = excluded.bands, dtype = excluded.dtype, gsd_m = excluded.gsd_m, captured_at = excluded.captured_at,
    reading = excluded.reading, geom = excluded.geom, ingested_at = now()

-- CLEAR_REJECTS
DELETE FROM reject
WHERE dataset_id = %(dataset_id)s AND kind = %(kind)s AND source_key = ANY (%(keys)s::text[])

-- ADD_REJECTS
INSERT INTO reject (dataset_id, kind, source_key, reason, detail)
SELECT DISTINCT ON (key, reason) %(dataset_id)s::int8, %(kind)s::text, key, reason, detail
FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS r (key, reason, detail)
ON CONFLICT (dataset_id, kind, source_key, reason) DO UPDATE SET detail = excluded.detail, seen_at = now()

-- RASTERS
SELECT aerial_raster_id, uri, kind, crs, reading - 'footprints' - 'options'
FROM aerial_raster WHERE dataset_id = %(dataset_id)s ORDER BY aerial_raster_id

-- FOOTPRINTS
SELECT captured_at, ST_AsBinary(ST_Union(geom))
FROM aerial_raster WHERE dataset_id = %(dataset_id)s GROUP BY captured_at ORDER BY captured_at

-- ZOOM_FOOTPRINTS
SELECT aerial_raster_id, reading -> 'footprints'
FROM aerial_raster WHERE dataset_id = %(dataset_id)s AND kind = 'xyz' ORDER BY aerial_raster_id

-- CREATE_TILE_STAGE
CREATE TEMP TABLE IF NOT EXISTS tile_stage (s2_id int8 NOT NULL, captured_at date, geom bytea NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS raster_part (aerial_raster_id int8, captured_at date, gsd_m float4, geom geometry);
CREATE TEMP TABLE IF NOT EXISTS tile_new (
    s2_id int8 NOT NULL, captured_at date, coverage float4 NOT NULL, aerial_raster_ids int8[] NOT NULL);
CREATE INDEX IF NOT EXISTS raster_part_geom_idx ON raster_part USING gist (geom);
CREATE INDEX IF NOT EXISTS tile_new_s2_id_idx ON tile_new (s2_id);
TRUNCATE tile_stage, raster_part, tile_new

-- CUT_RASTERS
INSERT INTO raster_part
SELECT aerial_raster_id, captured_at, gsd_m, ST_Subdivide(geom, 64) AS geom
FROM aerial_raster WHERE dataset_id = %(dataset_id)s

-- COUNT_STAGED
ANALYZE raster_part, tile_stage

-- COUNT_FOUND
ANALYZE tile_new

-- EMPTY_TILE_STAGE
TRUNCATE tile_stage, raster_part, tile_new

-- FIND_TILES
INSERT INTO tile_new
WITH square AS MATERIALIZED (
    SELECT s2_id, captured_at, ST_GeomFromWKB(geom, 4326) AS geom FROM tile_stage
), piece AS (
    SELECT q.s2_id, q.captured_at, ST_Area(q.geom) AS whole, p.aerial_raster_id, p.gsd_m,
           CASE WHEN ST_Covers(p.geom, q.geom) THEN q.geom ELSE ST_Intersection(p.geom, q.geom) END AS geom
    FROM square q
    JOIN raster_part p ON ST_Intersects(p.geom, q.geom) AND p.captured_at IS NOT DISTINCT FROM q.captured_at
), by_raster AS (
    SELECT s2_id, captured_at, whole, aerial_raster_id, gsd_m, ST_Union(geom) AS geom
    FROM piece GROUP BY s2_id, captured_at, whole, aerial_raster_id, gsd_m
)
SELECT s2_id, captured_at, least(1, ST_Area(ST_Union(geom)) / whole)::float4 AS coverage,
       array_agg(aerial_raster_id ORDER BY gsd_m, aerial_raster_id) AS aerial_raster_ids
FROM by_raster GROUP BY s2_id, captured_at, whole
HAVING ST_Area(ST_Union(geom)) / whole >= %(min_coverage)s AND ST_Area(ST_Union(geom)) > 0

-- DELETE_OTHER_TILES
DELETE FROM aerial_tile t
WHERE t.dataset_id = %(dataset_id)s AND t.level = %(level)s AND NOT EXISTS (
    SELECT FROM tile_new n
    WHERE n.s2_id = t.s2_id AND n.captured_at IS NOT DISTINCT FROM t.captured_at
      AND n.aerial_raster_ids = t.aerial_raster_ids AND n.coverage = t.coverage AND t.side_m = %(side_m)s::float4)

-- INSERT_TILES
INSERT INTO aerial_tile (dataset_id, level, s2_id, captured_at, side_m, coverage, aerial_raster_ids)
SELECT %(dataset_id)s, %(level)s, s2_id, captured_at, %(side_m)s, coverage, aerial_raster_ids
FROM tile_new ORDER BY s2_id, captured_at
ON CONFLICT DO NOTHING

-- COUNT_TILES
SELECT count(*), count(*) FILTER (WHERE coverage < 0.999), count(DISTINCT s2_id)
FROM aerial_tile WHERE dataset_id = %(dataset_id)s AND level = %(level)s
