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
SELECT split, photos, sequences, cells_l15, blocks_l13 FROM geofix.snapshot_split WHERE snapshot_id = %(snapshot_id)s
ORDER BY array_position(ARRAY['train', 'val', 'test_seen', 'test_unseen'], split)
