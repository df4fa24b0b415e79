-- CREATE_STAGE
CREATE TEMP TABLE IF NOT EXISTS region_stage (
    ord int8 NOT NULL, code text NOT NULL, name text NOT NULL, repaired text, geom bytea NOT NULL
) ON COMMIT DELETE ROWS;
TRUNCATE region_stage

-- MERGE_REGIONS
WITH piece AS (
    SELECT ord, code, name, repaired, ST_GeomFromEWKB(geom) AS geom FROM region_stage
), dissolved AS (
    SELECT code, coalesce((array_agg(name ORDER BY ord) FILTER (WHERE name <> ''))[1], code) AS name,
           string_agg(DISTINCT repaired, '; ') AS repaired,
           CASE WHEN count(*) = 1 THEN (array_agg(geom))[1] ELSE ST_Union(geom) END AS geom
    FROM piece GROUP BY code
), shaped AS (
    SELECT code, name, repaired, ST_Multi(ST_CollectionExtract(geom, 3)) AS geom FROM dissolved
)
INSERT INTO region AS r (dataset_id, level, code, name, area_km2, repaired, geom)
SELECT %(dataset_id)s, %(level)s, code, name, ST_Area(geom::geography) / 1e6, repaired, geom
FROM shaped WHERE NOT ST_IsEmpty(geom) ORDER BY code
ON CONFLICT (level, code) DO UPDATE SET
    dataset_id = excluded.dataset_id, name = excluded.name, area_km2 = excluded.area_km2,
    repaired = excluded.repaired, geom = excluded.geom, loaded_at = now()
WHERE (r.dataset_id, r.name, r.repaired) IS DISTINCT FROM (excluded.dataset_id, excluded.name, excluded.repaired)
   OR NOT r.geom = excluded.geom
RETURNING region_id

-- COUNT_STAGED
SELECT count(DISTINCT code), count(DISTINCT code) FILTER (WHERE repaired IS NOT NULL) FROM region_stage

-- DELETE_PARTS
DELETE FROM region_part WHERE region_id = ANY (%(ids)s)

-- INSERT_PARTS
INSERT INTO region_part (region_id, level, geom)
SELECT cut.region_id, cut.level, (d).geom
FROM (
    SELECT r.region_id, r.level, ST_Dump(ST_Subdivide(r.geom, 128)) AS d
    FROM region r WHERE r.region_id = ANY (%(ids)s)
) cut
WHERE ST_Dimension((d).geom) = 2

-- CLEAR_REJECTS
DELETE FROM reject
WHERE dataset_id = %(dataset_id)s AND kind = 'region' AND starts_with(source_key, %(prefix)s)
