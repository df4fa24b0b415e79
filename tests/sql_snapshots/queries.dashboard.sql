-- NO_JIT
SET LOCAL jit = off

-- COUNTS
SELECT (SELECT count(*) FROM geofix.photo_record) AS photos,
       (SELECT count(*) FROM geofix.sequence) AS sequences,
       (SELECT count(*) FROM geofix.dataset) AS datasets,
       (SELECT count(*) FROM geofix.region) AS regions,
       (SELECT count(*) FROM geofix.aerial_raster) AS rasters,
       (SELECT count(*) FROM geofix.aerial_tile) AS aerial_tiles,
       (SELECT count(*) FROM geofix.model) AS models,
       (SELECT count(*) FROM geofix.code_set) AS code_sets,
       (SELECT count(*) FROM geofix.snapshot) AS snapshots,
       (SELECT count(*) FROM geofix.evaluation) AS evaluations,
       (SELECT count(*) FROM geofix.reject) AS rejects

-- DATASETS
SELECT d.name, d.kind, d.licence, d.attribution, d.source_uri, d.created_at,
       coalesce(p.n, 0) AS photos, p.first_captured_at, p.last_captured_at, coalesce(s.n, 0) AS sequences,
       coalesce(r.n, 0) AS rasters, coalesce(t.n, 0) AS aerial_tiles, coalesce(g.n, 0) AS regions, coalesce(x.n, 0) AS rejects
FROM geofix.dataset d
LEFT JOIN (SELECT dataset_id, count(*) AS n, min(captured_at) AS first_captured_at, max(captured_at) AS last_captured_at
           FROM geofix.photo_record GROUP BY 1) p USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.sequence GROUP BY 1) s USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.aerial_raster GROUP BY 1) r USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.aerial_tile GROUP BY 1) t USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.region GROUP BY 1) g USING (dataset_id)
LEFT JOIN (SELECT dataset_id, count(*) AS n FROM geofix.reject GROUP BY 1) x USING (dataset_id)
ORDER BY d.kind DESC, d.name

-- MODELS
SELECT m.name, m.kind, m.dimension, left(m.weights_sha256, 12) AS weights, count(c.code_set_id) AS code_sets, m.created_at
FROM geofix.model m LEFT JOIN geofix.code_set c USING (model_id) GROUP BY m.model_id ORDER BY m.created_at

-- CODE_SETS
SELECT c.name, m.name AS model, c.recipe, c.level, c.state, c.stale_reason, c.cells, c.with_prototype, c.with_aerial,
       c.kappa, c.bytes, c.created_at
FROM geofix.code_set c JOIN geofix.model m USING (model_id) ORDER BY c.created_at

-- STATE
SELECT CASE current_setting('track_counts')
       WHEN 'on' THEN md5(string_agg(concat_ws(' ', relid, n_tup_ins, n_tup_upd, n_tup_del, pg_relation_filenode(relid)), ','
                                     ORDER BY relid))
       ELSE clock_timestamp()::text END
FROM pg_stat_user_tables
WHERE schemaname IN ('geofix', 'geofix_leaf') AND relname NOT IN ('job', 'job_event', 'worker', 'audit', 'query', 'stage_run')

-- JOBS
SELECT state, count(*) AS jobs, max(submitted_at) AS newest FROM geofix.job GROUP BY 1 ORDER BY 1

-- PHOTO_BOUNDS
SELECT public.ST_X(w.geom), public.ST_Y(s.geom), public.ST_X(e.geom), public.ST_Y(n.geom)
FROM (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 -90,-180 90)'::public.geometry LIMIT 1) AS w,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 -90,180 -90)'::public.geometry LIMIT 1) AS s,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(180 -90,180 90)'::public.geometry LIMIT 1) AS e,
     (SELECT geom FROM geofix.photo_record
      ORDER BY geom OPERATOR(public.<->) 'SRID=4326;LINESTRING(-180 90,180 90)'::public.geometry LIMIT 1) AS n

-- OUTLINES
SELECT code, name, public.ST_AsGeoJSON(cut, 5) AS shape
FROM (SELECT code, name, area_km2,
             public.ST_Simplify(public.ST_ClipByBox2D(geom, box.b), %(tolerance)s, true) AS cut
      FROM geofix.region CROSS JOIN (SELECT public.ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326) AS b) AS box
      WHERE level = %(level)s AND geom OPERATOR(public.&&) box.b) AS c
WHERE NOT public.ST_IsEmpty(cut) ORDER BY area_km2 DESC LIMIT %(limit)s

-- REGION_LEVELS
SELECT level, count(*) AS regions, count(repaired) AS repaired, sum(area_km2) AS area_km2 FROM geofix.region
GROUP BY level ORDER BY sum(area_km2) / count(*) DESC, level

-- REGIONS
SELECT r.level, r.code, r.name, d.name AS dataset, p.n AS photos, r.area_km2, r.repaired
FROM geofix.region r JOIN geofix.dataset d USING (dataset_id)
CROSS JOIN LATERAL (SELECT count(*) AS n FROM geofix.photo_region pr WHERE pr.region_id = r.region_id) AS p
WHERE r.level = %(level)s ORDER BY photos DESC, r.name LIMIT %(limit)s

-- TRACE
WITH RECURSIVE walk AS (
  SELECT f.s2_id, f.geom, r.hi
  FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
  CROSS JOIN LATERAL (SELECT p.s2_id, p.geom FROM geofix.photo_record p
                      WHERE p.s2_id BETWEEN r.lo AND r.hi ORDER BY p.s2_id LIMIT 1) AS f
  UNION ALL
  SELECT f.s2_id, f.geom, w.hi
  FROM walk w
  CROSS JOIN LATERAL (SELECT p.s2_id, p.geom FROM geofix.photo_record p
                      WHERE p.s2_id > (w.s2_id | (2 * %(bit)s::bigint - 1)) AND p.s2_id <= w.hi
                      ORDER BY p.s2_id LIMIT 1) AS f
)
SELECT public.ST_X(geom) AS lon, public.ST_Y(geom) AS lat FROM walk
WHERE geom OPERATOR(public.&&) public.ST_MakeEnvelope(%(west)s, %(south)s, %(east)s, %(north)s, 4326)
LIMIT %(limit)s

-- COVERAGE
WITH photo AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS photos, min(p.captured_at) AS first_captured_at, max(p.captured_at) AS last_captured_at FROM geofix.photo_record p GROUP BY 1
), aerial AS (
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS aerial_tiles, max(t.captured_at) AS last_aerial FROM geofix.aerial_tile t WHERE t.level >= %(level)s GROUP BY 1
), code AS (
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, bool_or(c.has_prototype) AS has_prototype, bool_or(c.has_aerial) AS has_aerial
  FROM geofix.code_set s JOIN geofix.cell_code c ON c.code_set_id = s.code_set_id WHERE s.state IN ('ready', 'stale') AND s.level >= %(level)s GROUP BY 1
),
cell AS (
  SELECT s2_id, coalesce(p.photos, 0) AS photos, coalesce(a.aerial_tiles, 0) AS aerial_tiles, p.first_captured_at,
         p.last_captured_at, a.last_aerial, coalesce(c.has_prototype, false) AS has_prototype,
         coalesce(c.has_aerial, false) AS has_aerial
  FROM photo p FULL JOIN aerial a USING (s2_id) FULL JOIN code c USING (s2_id)
), inside AS (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
)
SELECT geofix.s2_token(s2_id) AS cell, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM fullest CROSS JOIN total ORDER BY photos DESC, aerial_tiles DESC, s2_id

-- REGION_COVERAGE
WITH scope AS MATERIALIZED (
  SELECT lower(w)::bigint AS lo, upper(w)::bigint AS hi
  FROM (SELECT range_agg(numrange(geofix.s2_range_min(geofix.s2_parent(c.lo, %(level)s)),
                                  geofix.s2_range_max(geofix.s2_parent(c.hi, %(level)s)), '[]')) AS merged
        FROM geofix.region r CROSS JOIN LATERAL geofix.s2_covering(r.geom, 64) AS c
        WHERE r.level = %(region_level)s AND r.code = %(region_code)s) AS m
  CROSS JOIN LATERAL unnest(m.merged) AS w
), photo AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS photos, min(p.captured_at) AS first_captured_at, max(p.captured_at) AS last_captured_at
  FROM scope JOIN geofix.photo_record p ON p.s2_id BETWEEN scope.lo AND scope.hi GROUP BY 1
), aerial AS (
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS aerial_tiles, max(t.captured_at) AS last_aerial
  FROM scope JOIN geofix.aerial_tile t ON t.s2_id BETWEEN scope.lo AND scope.hi WHERE t.level >= %(level)s GROUP BY 1
), code AS (
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, bool_or(c.has_prototype) AS has_prototype, bool_or(c.has_aerial) AS has_aerial
  FROM scope CROSS JOIN geofix.code_set s
  JOIN geofix.cell_code c ON c.code_set_id = s.code_set_id AND c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE s.state IN ('ready', 'stale') AND s.level >= %(level)s GROUP BY 1
),
cell AS (
  SELECT s2_id, coalesce(p.photos, 0) AS photos, coalesce(a.aerial_tiles, 0) AS aerial_tiles, p.first_captured_at,
         p.last_captured_at, a.last_aerial, coalesce(c.has_prototype, false) AS has_prototype,
         coalesce(c.has_aerial, false) AS has_aerial
  FROM photo p FULL JOIN aerial a USING (s2_id) FULL JOIN code c USING (s2_id)
), inside AS (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
), total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
)
SELECT geofix.s2_token(s2_id) AS cell, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM fullest CROSS JOIN total ORDER BY photos DESC, aerial_tiles DESC, s2_id

-- PHOTO_CELLS
WITH cell AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS photos FROM geofix.photo_record p GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s

-- REJECT_COUNTS
SELECT d.name AS dataset, r.kind, r.reason, count(*) AS rejects, min(r.source_key) AS example, max(r.seen_at) AS last_seen
FROM geofix.reject r JOIN geofix.dataset d USING (dataset_id)
GROUP BY 1, 2, 3 ORDER BY rejects DESC, 1, 2, 3

-- REJECTS
SELECT d.name AS dataset, r.kind, r.reason, r.source_key, r.detail, r.seen_at
FROM geofix.reject r JOIN geofix.dataset d USING (dataset_id)
WHERE (%(dataset)s::text IS NULL OR d.name = %(dataset)s) AND (%(reason)s::text IS NULL OR r.reason = %(reason)s)
ORDER BY r.seen_at DESC, r.reject_id DESC LIMIT %(limit)s

-- SNAPSHOTS
SELECT s.snapshot_id, left(s.sha256, 12) AS sha256, s.uri, s.config, s.counts, s.created_at,
       (SELECT count(*) FROM geofix.model m WHERE m.snapshot_id = s.snapshot_id) AS models,
       (SELECT count(*) FROM geofix.evaluation e WHERE e.snapshot_id = s.snapshot_id) AS evaluations
FROM geofix.snapshot s ORDER BY s.created_at DESC

-- SPLITS
SELECT sp.split, count(*) AS photos, count(DISTINCT p.sequence_id) AS sequences,
       count(DISTINCT geofix.s2_parent(p.s2_id, 15)) AS cells_l15, count(DISTINCT geofix.s2_parent(p.s2_id, 13)) AS blocks_l13
FROM geofix.snapshot_photo sp JOIN geofix.photo_record p USING (photo_id)
WHERE sp.snapshot_id = %(snapshot_id)s
GROUP BY 1 ORDER BY array_position(ARRAY['train', 'val', 'test_seen', 'test_unseen'], sp.split)
