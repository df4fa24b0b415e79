-- FIND
SELECT * FROM geofix.model WHERE name = %(name)s

-- NAME
SELECT name FROM geofix.model WHERE model_id = %(model_id)s

-- LIST
SELECT m.*, coalesce(pg_total_relation_size(to_regclass('geofix_leaf.photo_embedding_' || m.model_id)), 0) AS photo_embedding_bytes,
       coalesce(pg_total_relation_size(to_regclass('geofix_leaf.aerial_embedding_' || m.model_id)), 0) AS aerial_embedding_bytes
FROM geofix.model m ORDER BY m.created_at

-- INSERT
INSERT INTO geofix.model (name, kind, dimension, directory_uri, weights_sha256, config, input_transform, snapshot_id, metrics)
VALUES (%(name)s, %(kind)s, %(dimension)s, %(directory_uri)s, %(weights_sha256)s, %(config)s, %(input_transform)s,
        %(snapshot_id)s, %(metrics)s)
RETURNING model_id

-- DELETE
DELETE FROM geofix.model WHERE model_id = %(model_id)s

-- TAKE_BACK
UPDATE geofix.model SET name = %(name)s
WHERE name = %(name)s || '-' || left(%(sha256)s, 12) AND weights_sha256 = %(sha256)s

-- STEP_ASIDE
UPDATE geofix.model SET name = name || '-' || left(weights_sha256, 12)
WHERE name = %(name)s AND weights_sha256 <> %(sha256)s RETURNING name

-- SET_DIRECTORY
UPDATE geofix.model SET directory_uri = %(directory_uri)s WHERE model_id = %(model_id)s

-- CODE_SETS_OF
SELECT name FROM geofix.code_set WHERE model_id = %(model_id)s ORDER BY 1

-- UNKNOWN_DATASETS
SELECT u.name FROM unnest(%(datasets)s::text[]) AS u(name)
WHERE NOT EXISTS (SELECT FROM geofix.dataset d WHERE d.name = u.name AND d.kind = %(kind)s) ORDER BY 1

-- RASTERS
SELECT aerial_raster_id, uri, kind, crs, reading FROM geofix.aerial_raster WHERE aerial_raster_id = ANY (%(ids)s)

-- MERGE
INSERT INTO {leaf} ({parent_column}, {key}, embedding)
SELECT {parent_id}, s.key, s.embedding FROM pg_temp.staged_embedding s JOIN {source} t ON t.{key} = s.key
ON CONFLICT ({key}) DO NOTHING

-- READ_SPLIT
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = ANY ({splits}) ORDER BY e.photo_id

-- READ_SPAN
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.snapshot_photo s USING (photo_id)
JOIN geofix.photo_record p USING (photo_id)
WHERE e.model_id = {model_id} AND s.snapshot_id = {snapshot_id} AND s.split = ANY ({splits})
  AND p.s2_id BETWEEN {first} AND {last} ORDER BY e.photo_id

-- SPLIT_STAMP
SELECT count(*), coalesce(sum(hashint8(e.photo_id)), 0) FROM geofix.photo_embedding e
JOIN geofix.snapshot_photo s USING (photo_id)
WHERE e.model_id = %(model_id)s AND s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s

-- READ_DATASETS
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.dataset d USING (dataset_id)
WHERE e.model_id = {model_id} AND d.name = ANY ({datasets}) ORDER BY e.photo_id

-- READ_TILES
SELECT e.aerial_tile_id, e.embedding FROM geofix.aerial_embedding e
WHERE e.model_id = {model_id} ORDER BY e.aerial_tile_id

-- TILE_CELLS
SELECT t.aerial_tile_id, t.s2_id, t.level FROM geofix.aerial_tile t JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = %(model_id)s
  AND (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND (%(region)s::bytea IS NULL OR public.ST_Covers(public.ST_GeomFromEWKB(%(region)s), geofix.s2_center(t.s2_id)))
ORDER BY t.aerial_tile_id

-- add_embeddings()
CREATE TEMP TABLE IF NOT EXISTS staged_embedding (key bigint, embedding public.halfvec) ON COMMIT DELETE ROWS

-- add_embeddings()
TRUNCATE pg_temp.staged_embedding

-- analyze_embeddings()
ANALYZE {}
