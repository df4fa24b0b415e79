-- PHOTOS_OF_SNAPSHOT
SELECT r.photo_id, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat
FROM geofix.snapshot_photo s JOIN geofix.photo_record r USING (photo_id)
WHERE s.snapshot_id = {snapshot_id} AND s.split = 'train' ORDER BY r.photo_id

-- PHOTOS_OF_DATASETS
SELECT r.photo_id, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat
FROM geofix.photo_record r JOIN geofix.dataset d USING (dataset_id)
WHERE d.name = ANY ({datasets}) ORDER BY r.photo_id

-- CODES
SELECT a.photo_id, g.code FROM geofix.photo_region a JOIN geofix.region g USING (region_id)
WHERE a.level = %(level)s AND a.photo_id = ANY (%(ids)s)

-- OUTLINES
SELECT code, public.ST_AsEWKB(geom) FROM geofix.region WHERE level = %(level)s AND code = ANY (%(codes)s)

-- DATASETS_OF_SNAPSHOT
SELECT DISTINCT r.dataset_id FROM geofix.snapshot_photo s JOIN geofix.photo_record r USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s ORDER BY 1

-- DATASET_IDS
SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s) ORDER BY 1

-- FIND_ID
SELECT partition_id FROM geofix.partition WHERE name = %(name)s

-- IDS
SELECT name, partition_id FROM geofix.partition WHERE name = ANY (%(names)s)

-- INSERT
INSERT INTO geofix.partition (name, kind, snapshot_id, dataset_ids, coarser_id, set_ids, region_level, parameters,
                              classes, photos, software_version)
VALUES (%(name)s, %(kind)s, %(snapshot_id)s, %(dataset_ids)s, %(coarser_id)s, %(set_ids)s, %(region_level)s,
        %(parameters)s, %(classes)s, %(photos)s, %(software_version)s)
ON CONFLICT (name) DO NOTHING RETURNING partition_id

-- DROP
DELETE FROM geofix.partition WHERE name = %(name)s RETURNING classes

-- DEPENDENTS
SELECT d.name FROM geofix.partition p JOIN geofix.partition d
  ON d.coarser_id = p.partition_id OR p.partition_id = ANY (d.set_ids)
WHERE p.name = ANY (%(names)s) AND NOT d.name = ANY (%(names)s) ORDER BY 1

-- NAMES
SELECT name FROM geofix.partition ORDER BY name

-- SUMMARY
SELECT * FROM geofix.partition_summary WHERE %(name)s::text IS NULL OR name = %(name)s ORDER BY name

-- CLASSES
SELECT class, region_code, photos, parent_class, members, public.ST_X(mean_geom), public.ST_Y(mean_geom),
       CASE WHEN %(outlines)s THEN public.ST_AsEWKB(geom) END
FROM geofix.partition_class WHERE partition_id = %(partition_id)s ORDER BY class

-- CELLS
SELECT s2_id, class FROM geofix.partition_cell WHERE partition_id = {partition_id} ORDER BY s2_id

-- LEVELS
SELECT geofix.s2_level(s2_id) AS level, count(*) AS cells FROM geofix.partition_cell
WHERE partition_id = %(partition_id)s GROUP BY 1 ORDER BY 1

-- SPREAD
SELECT min(photos), percentile_disc(0.5) WITHIN GROUP (ORDER BY photos), max(photos)
FROM geofix.partition_class WHERE partition_id = %(partition_id)s

-- LARGEST
SELECT class, s2_token, region_code, photos, mean_lon, mean_lat FROM geofix.partition_map
WHERE partition = %(name)s ORDER BY photos DESC, class LIMIT %(limit)s

-- MAP
SELECT class, s2_token, level, region_code, photos, parent_class, members, mean_lon, mean_lat,
       public.ST_AsEWKB(geom) AS geom
FROM geofix.partition_map WHERE partition = %(name)s ORDER BY class

-- LICENCES
SELECT d.name, d.licence, d.attribution FROM geofix.partition p JOIN geofix.dataset d ON d.dataset_id = ANY (p.dataset_ids)
WHERE p.name = %(name)s ORDER BY 1
