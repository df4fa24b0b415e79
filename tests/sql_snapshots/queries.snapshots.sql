-- CANDIDATES
SELECT p.photo_id, d.name AS dataset, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.s2_id, p.sequence_id,
       s.key AS sequence_key, p.captured_at, encode(p.sha256, 'hex') AS sha256, p.uri, p.heading_deg, p.gps_accuracy_m, rc.code AS country_code,
       ra.code AS admin1_code
FROM geofix.photo_record p
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.sequence s USING (sequence_id)
LEFT JOIN geofix.photo_region c ON c.photo_id = p.photo_id AND c.level = 'country'
LEFT JOIN geofix.region rc ON rc.region_id = c.region_id
LEFT JOIN geofix.photo_region a ON a.photo_id = p.photo_id AND a.level = 'admin1'
LEFT JOIN geofix.region ra ON ra.region_id = a.region_id
WHERE d.name = ANY (%(datasets)s) AND (p.uri IS NOT NULL OR %(positions_only)s)
ORDER BY p.photo_id

-- DATASETS
SELECT name, licence, attribution FROM geofix.dataset WHERE name = ANY (%(datasets)s) AND kind = 'photos' ORDER BY name

-- AERIAL_DATASETS
SELECT name, licence, attribution FROM geofix.dataset
WHERE kind = 'aerial' AND (%(sources)s::text[] IS NULL OR name = ANY (%(sources)s)) ORDER BY name

-- AERIAL_TILES
SELECT t.s2_id, t.level, t.side_m, t.captured_at, d.name AS source, t.aerial_raster_ids
FROM unnest(%(low)s::int8[], %(high)s::int8[]) AS block (low, high)
JOIN geofix.aerial_tile t ON t.s2_id BETWEEN block.low AND block.high
JOIN geofix.dataset d USING (dataset_id)
WHERE d.name = ANY (%(sources)s)
ORDER BY t.s2_id, d.name, t.captured_at

-- AERIAL_RASTERS
SELECT r.aerial_raster_id, r.uri, r.kind, r.crs, (r.reading - 'footprints' - 'options')::text AS reading,
       encode(r.sha256, 'hex') AS sha256, r.captured_at, d.name AS source,
       public.ST_XMin(r.geom) AS west, public.ST_YMin(r.geom) AS south,
       public.ST_XMax(r.geom) AS east, public.ST_YMax(r.geom) AS north
FROM geofix.aerial_raster r
JOIN geofix.dataset d USING (dataset_id)
WHERE r.aerial_raster_id IN (
    SELECT unnest(t.aerial_raster_ids)
    FROM unnest(%(low)s::int8[], %(high)s::int8[]) AS block (low, high)
    JOIN geofix.aerial_tile t ON t.s2_id BETWEEN block.low AND block.high
    JOIN geofix.dataset td ON td.dataset_id = t.dataset_id
    WHERE td.name = ANY (%(sources)s)
)
ORDER BY d.name, r.sha256, r.captured_at, r.uri

-- INSERT
INSERT INTO geofix.snapshot (uri, sha256, config, counts) VALUES (%(uri)s, %(sha256)s, %(config)s, %(counts)s)
ON CONFLICT (sha256) DO UPDATE SET uri = excluded.uri RETURNING snapshot_id

-- FIND
SELECT snapshot_id, uri, sha256, config, counts FROM geofix.snapshot WHERE sha256 = %(sha256)s

-- CLEAR
WITH counted AS (DELETE FROM geofix.snapshot_split WHERE snapshot_id = %(snapshot_id)s)
DELETE FROM geofix.snapshot_photo WHERE snapshot_id = %(snapshot_id)s

-- SHA256
SELECT sha256 FROM geofix.snapshot WHERE snapshot_id = %(snapshot_id)s

-- LEARNED
SELECT asked.split, count(*) FROM geofix.snapshot other
JOIN geofix.snapshot_photo learned ON learned.snapshot_id = other.snapshot_id AND learned.split = 'train'
JOIN geofix.snapshot_photo asked ON asked.photo_id = learned.photo_id
WHERE other.sha256 = %(sha256)s AND asked.snapshot_id = %(snapshot_id)s AND asked.split = ANY (%(splits)s)
GROUP BY 1 ORDER BY 1

-- COUNT
INSERT INTO geofix.snapshot_split (snapshot_id, split, photos, sequences, cells_l15, blocks_l13)
WITH place AS MATERIALIZED (
  SELECT sp.split, p.sequence_id, (p.s2_id & -(1::bigint << 30)) | (1::bigint << 30) AS cell, count(*) AS photos
  FROM geofix.snapshot_photo sp JOIN geofix.photo_record p USING (photo_id)
  WHERE sp.snapshot_id = %(snapshot_id)s GROUP BY 1, 2, 3
), cells AS MATERIALIZED (
  SELECT split, cell FROM place GROUP BY 1, 2
), photos AS (
  SELECT split, sum(photos)::bigint AS photos FROM place GROUP BY 1
), sequences AS (
  SELECT split, count(sequence_id) AS sequences FROM (SELECT split, sequence_id FROM place GROUP BY 1, 2) AS s GROUP BY 1
), blocks AS (
  SELECT split, count(*) AS blocks_l13
  FROM (SELECT split, (cell & -(1::bigint << 34)) | (1::bigint << 34) AS block FROM cells GROUP BY 1, 2) AS b GROUP BY 1
)
SELECT %(snapshot_id)s, split, photos, sequences, (SELECT count(*) FROM cells c WHERE c.split = photos.split) AS cells_l15, blocks_l13
FROM photos JOIN sequences USING (split) JOIN blocks USING (split)

-- PHOTOS
SELECT s.photo_id, s.split, p.s2_id, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat, p.gps_accuracy_m,
       p.sequence_id, p.captured_at
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s AND (%(splits)s::text[] IS NULL OR s.split = ANY (%(splits)s))
  AND (%(first)s::bigint IS NULL OR p.s2_id BETWEEN %(first)s AND %(last)s)
ORDER BY s.photo_id

-- AUTHORS
SELECT s.photo_id, p.author FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s ORDER BY s.photo_id

-- FILES
SELECT p.uri, public.ST_X(p.geom), public.ST_Y(p.geom) FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s AND s.split = %(split)s AND p.uri IS NOT NULL
ORDER BY p.sha256, p.photo_id LIMIT %(limit)s

-- BUFFER_BREACHES
SELECT t.photo_id, o.photo_id, o_split.split, public.ST_DistanceSphere(t.geom, o.geom) AS distance_m
FROM geofix.snapshot_photo ts
JOIN geofix.photo_record t ON t.photo_id = ts.photo_id
JOIN geofix.photo_record o
  ON o.geom OPERATOR(public.&&) public.ST_Expand(t.geom,
       %(buffer_m)s / 111000.0 / greatest(0.01, cos(radians(least(89.4, abs(public.ST_Y(t.geom)) + 0.01)))),
       %(buffer_m)s / 111000.0)
JOIN geofix.snapshot_photo o_split ON o_split.photo_id = o.photo_id AND o_split.snapshot_id = ts.snapshot_id
WHERE ts.snapshot_id = %(snapshot_id)s AND ts.split = 'test_unseen' AND o_split.split IN ('train', 'val')
  AND public.ST_DistanceSphere(t.geom, o.geom) < %(buffer_m)s
ORDER BY 4 LIMIT 5

-- SEQUENCE_BREACHES
SELECT s.key, array_agg(DISTINCT sp.split ORDER BY sp.split) FROM geofix.snapshot_photo sp
JOIN geofix.photo_record p USING (photo_id) JOIN geofix.sequence s USING (sequence_id)
WHERE sp.snapshot_id = %(snapshot_id)s GROUP BY s.sequence_id, s.key
HAVING count(DISTINCT sp.split) FILTER (WHERE sp.split <> 'val') > 1
    OR (bool_or(sp.split = 'val') AND count(DISTINCT sp.split) > 1)
ORDER BY 1 LIMIT 5
