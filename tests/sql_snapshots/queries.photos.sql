-- UPSERT_DATASET
INSERT INTO dataset (name, kind, licence, attribution, source_uri)
VALUES (%(name)s, 'photos', %(licence)s, %(attribution)s, %(source_uri)s)
ON CONFLICT (name) DO UPDATE SET
    licence = coalesce(excluded.licence, dataset.licence),
    attribution = coalesce(excluded.attribution, dataset.attribution),
    source_uri = coalesce(excluded.source_uri, dataset.source_uri)
RETURNING dataset_id, kind

-- LOCK_DATASET
SELECT pg_try_advisory_lock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))

-- UNLOCK_DATASET
SELECT pg_advisory_unlock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))

-- KNOWN
SELECT p.source_key, p.file_bytes, p.file_mtime_ns, p.sha256, p.width, p.height, ST_X(p.geom), ST_Y(p.geom),
       p.gps_accuracy_m, p.heading_deg, p.captured_at, p.extra, s.key, p.author, p.licence
FROM photo_record p LEFT JOIN sequence s USING (sequence_id)
WHERE p.dataset_id = %(dataset_id)s AND p.source_key = ANY(%(keys)s)

-- PHOTO_LEVELS
SELECT DISTINCT level FROM region ORDER BY level

-- FORGET_REGIONS
DELETE FROM photo_region r USING photo_record p
WHERE r.photo_id = p.photo_id AND r.level = %(level)s
  AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)

-- ASSIGN_INSIDE
INSERT INTO photo_region (photo_id, level, region_id, distance_m)
SELECT DISTINCT ON (p.photo_id) p.photo_id, %(level)s, r.region_id, 0
FROM photo_record p
JOIN region_part part ON part.level = %(level)s AND ST_Intersects(part.geom, p.geom)
JOIN region r ON r.region_id = part.region_id
WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
  AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)
ORDER BY p.photo_id, r.area_km2, r.code
ON CONFLICT DO NOTHING

-- ASSIGN_NEAREST
WITH lacking AS MATERIALIZED (
    SELECT p.photo_id, p.geom
    FROM photo_record p
    WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
      AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)
), admin1_home AS MATERIALIZED (
    SELECT DISTINCT ON (r.region_id) r.region_id, part.region_id AS country_id
    FROM region r
    JOIN region_part part ON part.level = 'country' AND ST_Intersects(part.geom, ST_PointOnSurface(r.geom))
    WHERE r.level = 'admin1' AND %(level)s = 'admin1'
    ORDER BY r.region_id, part.region_id
)
INSERT INTO photo_region (photo_id, level, region_id, distance_m)
SELECT p.photo_id, %(level)s, near.region_id, near.distance_m
FROM lacking p
CROSS JOIN LATERAL (
    SELECT %(max_m)s::float8 / 110574 AS dlat,
           least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(
               least(90, abs(ST_Y(p.geom)) + %(max_m)s::float8 / 110574)))))) AS dlon
) size
CROSS JOIN LATERAL (
    SELECT part.region_id, ST_Distance(ST_Segmentize(part.geom, 0.1)::geography, p.geom::geography) AS distance_m
    FROM region_part part
    WHERE part.level = %(level)s
      AND (part.geom && ST_Expand(p.geom, size.dlon, size.dlat)
        OR (ST_X(p.geom) + size.dlon > 180
            AND part.geom && ST_Expand(ST_Translate(p.geom, -360, 0), size.dlon, size.dlat))
        OR (ST_X(p.geom) - size.dlon < -180
            AND part.geom && ST_Expand(ST_Translate(p.geom, 360, 0), size.dlon, size.dlat)))
    ORDER BY distance_m, part.region_id
    LIMIT 1
) near
WHERE near.distance_m <= %(max_m)s
  AND (%(level)s <> 'admin1' OR NOT EXISTS (
    SELECT FROM photo_region c
    JOIN admin1_home home ON home.region_id = near.region_id
    WHERE c.photo_id = p.photo_id AND c.level = 'country' AND c.region_id <> home.country_id))
ON CONFLICT DO NOTHING

-- ANALYZE
ANALYZE photo_record, photo_region

-- COUNT_PHOTOS
SELECT count(*) FROM photo_record WHERE dataset_id = %(dataset_id)s
