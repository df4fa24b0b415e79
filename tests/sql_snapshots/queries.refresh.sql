-- LOCK
SELECT state, code_set_id FROM geofix.code_set WHERE name = %(name)s FOR NO KEY UPDATE

-- CELLS
SELECT s2_id FROM geofix.cell_code WHERE code_set_id = {code_set_id} ORDER BY s2_id

-- CODES_OF
SELECT c.s2_id, c.code FROM geofix.cell_code c
WHERE c.code_set_id = {code_set_id} AND c.s2_id = ANY ({ids}) ORDER BY c.s2_id

-- PARTS_OF
SELECT c.has_prototype, c.has_aerial FROM geofix.cell_code c
WHERE c.code_set_id = {code_set_id} AND c.s2_id = ANY ({ids}) ORDER BY c.s2_id

-- PHOTOS
SELECT p.s2_id, e.embedding FROM geofix.photo_embedding e JOIN geofix.photo_record p USING (photo_id)
WHERE e.model_id = {model_id}
  AND p.geom OPERATOR(public.&&) public.ST_MakeEnvelope({west}, {south}, {east}, {north}, 4326)
  AND ({datasets}::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
  AND (EXISTS (SELECT FROM geofix.snapshot_photo t
               WHERE t.photo_id = p.photo_id AND t.snapshot_id = {snapshot_id}::bigint AND t.split = 'train')
       OR NOT EXISTS (SELECT FROM geofix.snapshot_photo h WHERE h.photo_id = p.photo_id AND h.split <> 'train')
      AND NOT EXISTS (SELECT FROM geofix.snapshot o JOIN geofix.dataset d ON o.config -> 'datasets' ? d.name
                      WHERE o.snapshot_id = {snapshot_id}::bigint AND d.dataset_id = p.dataset_id
                        AND p.ingested_at <= o.created_at))
ORDER BY p.photo_id

-- TILES
SELECT t.s2_id, e.embedding
FROM unnest({low}::int8[], {high}::int8[]) AS span (low, high)
JOIN geofix.aerial_tile t ON t.s2_id BETWEEN span.low AND span.high
JOIN geofix.aerial_embedding e USING (aerial_tile_id)
WHERE e.model_id = {model_id} AND t.level = {level}
  AND ({datasets}::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY ({datasets}::text[])))
ORDER BY t.aerial_tile_id

-- STAGE
CREATE TEMP TABLE IF NOT EXISTS refreshed_code (
  s2_id bigint, code public.halfvec, has_prototype boolean, has_aerial boolean) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS replaced_cell (s2_id bigint) ON COMMIT DELETE ROWS;
TRUNCATE pg_temp.refreshed_code, pg_temp.replaced_cell

-- FILL
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM (
  SELECT c.s2_id, c.code, c.has_prototype, c.has_aerial FROM geofix.cell_code c
  WHERE c.code_set_id = {old_id} AND NOT EXISTS (SELECT FROM pg_temp.replaced_cell r WHERE r.s2_id = c.s2_id)
  UNION ALL SELECT s2_id, code, has_prototype, has_aerial FROM pg_temp.refreshed_code) AS every
ORDER BY s2_id

-- ANALYZE
ANALYZE pg_temp.refreshed_code, pg_temp.replaced_cell

-- DEAD
SELECT greatest(coalesce((index_parameters ->> 'dead_entries')::bigint, 0),
  pg_stat_get_dead_tuples(to_regclass(%(leaf)s)) - coalesce((index_parameters ->> 'dead_before')::bigint, 0))
FROM geofix.code_set WHERE code_set_id = %(code_set_id)s

-- REMOVE
WITH gone AS (
  DELETE FROM {leaf} AS c USING pg_temp.replaced_cell AS r WHERE c.s2_id = r.s2_id RETURNING c.has_prototype, c.has_aerial
)
SELECT count(*), count(*) FILTER (WHERE has_prototype), count(*) FILTER (WHERE has_aerial) FROM gone

-- ADD
INSERT INTO {leaf} (code_set_id, s2_id, code, has_prototype, has_aerial)
SELECT {code_set_id}, s2_id, code, has_prototype, has_aerial FROM pg_temp.refreshed_code ORDER BY s2_id

-- TOUCHED_BLOCKS
CREATE TEMP TABLE touched_block ON COMMIT DROP AS
SELECT DISTINCT geofix.s2_parent(s2_id, {level}) AS s2_id
FROM (SELECT s2_id FROM pg_temp.replaced_cell UNION ALL SELECT s2_id FROM pg_temp.refreshed_code) AS touched

-- REMOVE_BLOCKS
DELETE FROM geofix.cell_block AS b USING pg_temp.touched_block AS t
WHERE b.code_set_id = %(code_set_id)s AND b.s2_id = t.s2_id

-- ADD_BLOCKS
INSERT INTO geofix.cell_block (code_set_id, s2_id, lo, hi, cells, geom)
SELECT {code_set_id}, t.s2_id, r.lo, r.hi, c.cells, geofix.s2_polygon(t.s2_id)
FROM pg_temp.touched_block AS t
CROSS JOIN LATERAL geofix.s2_range(t.s2_id) AS r
CROSS JOIN LATERAL (SELECT count(*) AS cells FROM {leaf} WHERE s2_id BETWEEN r.lo AND r.hi) AS c
WHERE c.cells > 0

-- RENEW
UPDATE geofix.code_set SET
  ready_at = greatest(clock_timestamp(), ready_at + interval '1 microsecond'), config = %(config)s,
  cells = cells - %(gone)s + %(cells)s,
  with_prototype = with_prototype - %(gone_prototype)s + %(with_prototype)s,
  with_aerial = with_aerial - %(gone_aerial)s + %(with_aerial)s,
  bytes = pg_total_relation_size(to_regclass(%(leaf)s)),
  index_parameters = CASE WHEN index_parameters ? 'm'
    THEN index_parameters || jsonb_build_object('dead_entries', %(dead_entries)s::bigint) ELSE index_parameters END
WHERE code_set_id = %(code_set_id)s

-- DETACH_EVALUATIONS
UPDATE geofix.evaluation SET code_set_id = NULL WHERE code_set_id = %(code_set_id)s
