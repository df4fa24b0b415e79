-- LEVELS
SELECT DISTINCT level FROM region ORDER BY level

-- ANALYZE
ANALYZE photo_record, photo_region

-- CREATE_TODO
CREATE TEMP TABLE IF NOT EXISTS region_todo (photo_id int8 NOT NULL, geom geometry NOT NULL) ON COMMIT DELETE ROWS;
TRUNCATE region_todo

-- FORGET_LEVEL
DELETE FROM photo_region r USING photo_record p
WHERE r.photo_id = p.photo_id AND r.level = %(level)s
  AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)

-- TODO_LACKING
INSERT INTO region_todo
SELECT p.photo_id, p.geom FROM photo_record p
WHERE (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
  AND NOT EXISTS (SELECT FROM photo_region a WHERE a.photo_id = p.photo_id AND a.level = %(level)s)

-- TODO_CHANGED
INSERT INTO region_todo
SELECT p.photo_id, p.geom FROM photo_record p
WHERE p.photo_id IN (
    SELECT a.photo_id FROM photo_region a WHERE a.region_id = ANY (%(ids)s) AND a.level = %(level)s
    UNION
    SELECT near.photo_id
    FROM region_part part
    CROSS JOIN LATERAL (
        SELECT %(max_m)s::float8 / 110574 AS dlat,
               least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(least(90,
                   greatest(abs(ST_YMin(part.geom)), abs(ST_YMax(part.geom))) + 2 * %(max_m)s::float8 / 110574)))))) AS dlon
    ) size
    CROSS JOIN LATERAL (VALUES (0), (-360), (360)) AS turn (lon)
    CROSS JOIN LATERAL (
        SELECT n.photo_id FROM photo_record n
        WHERE n.geom && ST_Expand(ST_Translate(ST_Envelope(part.geom), turn.lon, 0), size.dlon, size.dlat)
        OFFSET 0
    ) near
    WHERE part.region_id = ANY (%(ids)s))

-- FORGET_TODO
DELETE FROM photo_region r USING region_todo t WHERE r.photo_id = t.photo_id AND r.level = %(level)s

-- FORGET_NEAREST
DELETE FROM photo_region r USING region_todo t
WHERE r.photo_id = t.photo_id AND r.level = %(level)s AND r.distance_m > 0

-- KEEP_LACKING
DELETE FROM region_todo t USING photo_region r WHERE r.photo_id = t.photo_id AND r.level = %(level)s

-- ANALYZE_TODO
ANALYZE region_todo (photo_id)

-- MOST_PHOTOS
SELECT count(*) >= 1000 AND count(*) >= 0.2 * (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'photo_record'::regclass)
FROM region_todo

-- DROP_FOUND
DROP TABLE IF EXISTS pg_temp.region_found

-- FIND_BY_PHOTO
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT t.photo_id, inside.region_id
FROM region_todo t
CROSS JOIN LATERAL (
    SELECT part.region_id FROM region_part part
    WHERE part.level = %(level)s AND part.geom && t.geom AND ST_Intersects(part.geom, t.geom)
    OFFSET 0
) inside

-- FIND_BY_PART
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT inside.photo_id, part.region_id
FROM region_part part
CROSS JOIN LATERAL (
    SELECT p.photo_id FROM photo_record p
    WHERE p.geom && part.geom AND ST_Intersects(part.geom, p.geom)
      AND (%(dataset_id)s::int8 IS NULL OR p.dataset_id = %(dataset_id)s)
    OFFSET 0
) inside
WHERE part.level = %(level)s

-- INDEX_PLACES
CREATE INDEX region_todo_geom_idx ON region_todo USING gist (geom)

-- FIND_PLACES_BY_PART
CREATE TEMP TABLE region_found ON COMMIT DROP AS
SELECT inside.photo_id, part.region_id
FROM region_part part
CROSS JOIN LATERAL (
    SELECT t.photo_id FROM region_todo t WHERE t.geom && part.geom AND ST_Intersects(part.geom, t.geom)
    OFFSET 0
) inside
WHERE part.level = %(level)s

-- FORGET_INDEX
DROP INDEX pg_temp.region_todo_geom_idx

-- MOST_PLACES
SELECT (SELECT count(*) FROM region_todo) > (SELECT count(*) FROM region_part WHERE level = %(level)s)

-- ANALYZE_FOUND
ANALYZE region_found (photo_id)

-- ASSIGN_INSIDE
WITH ranked AS MATERIALIZED (
    SELECT region_id, row_number() OVER (ORDER BY area_km2, code) AS place FROM region WHERE level = %(level)s
)
INSERT INTO {regions} (photo_id, level, region_id, distance_m)
SELECT DISTINCT ON (t.photo_id) t.photo_id, %(level)s, f.region_id, 0
FROM region_found f
JOIN region_todo t USING (photo_id)
JOIN ranked r USING (region_id)
ORDER BY t.photo_id, r.place
ON CONFLICT DO NOTHING

-- ASSIGN_NEAREST
WITH lacking AS MATERIALIZED (
    SELECT t.photo_id, t.geom, own.region_id AS country_id, dlat, dlon, squeeze, (1 + off) / (1 - off) AS slack
    FROM region_todo t
    LEFT JOIN {regions} own ON own.photo_id = t.photo_id AND own.level = 'country' AND %(level)s = 'admin1'
    CROSS JOIN LATERAL (
        SELECT ST_X(t.geom) AS lon, ST_Y(t.geom) AS lat, %(max_m)s::float8 / 110574 AS dlat
    ) at
    CROSS JOIN LATERAL (
        SELECT least(90, abs(lat) + dlat) AS far_lat, cos(radians(lat)) AS squeeze
    ) far
    CROSS JOIN LATERAL (
        SELECT least(180, %(max_m)s::float8 / (110574 * greatest(1e-6, cos(radians(far_lat))))) AS dlon,
               0.007 + tan(radians(least(far_lat, 80))) * %(max_m)s::float8 / 6371000 AS part_off
    ) size
    CROSS JOIN LATERAL (
        SELECT CASE WHEN far_lat < 80 AND abs(lon) + dlon < 180 AND part_off < 0.2 THEN part_off END AS off
    ) error
    WHERE NOT EXISTS (SELECT FROM region_found f WHERE f.photo_id = t.photo_id)
), admin1_home AS MATERIALIZED (
    SELECT DISTINCT ON (r.region_id) r.region_id, part.region_id AS country_id
    FROM region r
    JOIN region_part part ON part.level = 'country' AND ST_Intersects(part.geom, ST_PointOnSurface(r.geom))
    JOIN region country ON country.region_id = part.region_id
    WHERE r.level = 'admin1' AND %(level)s = 'admin1'
    ORDER BY r.region_id, country.area_km2, country.code
)
INSERT INTO {regions} (photo_id, level, region_id, distance_m)
SELECT p.photo_id, %(level)s, near.region_id, near.distance_m
FROM lacking p
CROSS JOIN LATERAL (
    SELECT candidate.region_id, measured.distance_m
    FROM (
        SELECT part.region_id, part.geom, part.rough_m, min(part.rough_m) OVER () AS best_m
        FROM (
            SELECT part.region_id, part.geom,
                   111194.93 * ST_Distance(ST_Scale(part.geom, p.squeeze, 1), ST_Scale(p.geom, p.squeeze, 1)) AS rough_m
            FROM region_part part
            WHERE part.level = %(level)s
              AND (part.geom && ST_Expand(p.geom, p.dlon, p.dlat)
                OR (ST_X(p.geom) + p.dlon > 180
                    AND part.geom && ST_Expand(ST_Translate(p.geom, -360, 0), p.dlon, p.dlat))
                OR (ST_X(p.geom) - p.dlon < -180
                    AND part.geom && ST_Expand(ST_Translate(p.geom, 360, 0), p.dlon, p.dlat)))
              AND (p.country_id IS NULL
                OR (part.region_id, p.country_id) IN (SELECT home.region_id, home.country_id FROM admin1_home home)
                OR part.region_id NOT IN (SELECT home.region_id FROM admin1_home home))
            OFFSET 0
        ) part
    ) candidate
    CROSS JOIN LATERAL (
        SELECT CASE WHEN p.slack IS NOT NULL THEN ST_ClipByBox2D(candidate.geom, ST_Expand(p.geom,
                   1.1 * (candidate.rough_m * p.slack + 50) / (110574 * p.squeeze) * p.slack,
                   1.1 * (candidate.rough_m * p.slack + 50) / 110574)::box2d) END AS geom
    ) clip
    CROSS JOIN LATERAL (
        SELECT ST_Distance(ST_Segmentize(CASE
                   WHEN clip.geom IS NOT NULL AND NOT ST_IsEmpty(clip.geom) AND abs(candidate.rough_m - 111194.93 * ST_Distance(
                        ST_Scale(clip.geom, p.squeeze, 1), ST_Scale(p.geom, p.squeeze, 1))) < 0.001 THEN clip.geom
                   ELSE candidate.geom END, 0.02)::geography, p.geom::geography) AS distance_m
        OFFSET 0
    ) measured
    JOIN region named ON named.region_id = candidate.region_id
    WHERE p.slack IS NULL OR candidate.rough_m <= p.slack * least(candidate.best_m, %(max_m)s::float8) + 1
    ORDER BY round(1000 * measured.distance_m), named.code
    LIMIT 1
) near
WHERE near.distance_m <= %(max_m)s
ON CONFLICT DO NOTHING

-- COUNT_REGIONS
SELECT count(*) FROM region WHERE level = %(level)s
