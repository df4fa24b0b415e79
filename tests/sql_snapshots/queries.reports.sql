-- ASSIGNMENT
SELECT d.name AS dataset, count(*) AS photos, count(r.region_id) AS assigned,
       count(*) FILTER (WHERE pr.distance_m > 0) AS by_distance,
       count(*) FILTER (WHERE p.extra ->> %(field)s <> '') AS named,
       count(*) FILTER (WHERE p.extra ->> %(field)s = r.code) AS equal,
       coalesce(array_agg(DISTINCT (p.extra ->> %(field)s) || ' -> ' || coalesce(r.code, '-'))
         FILTER (WHERE p.extra ->> %(field)s <> '' AND p.extra ->> %(field)s IS DISTINCT FROM r.code), '{}') AS different
FROM geofix.photo_record p
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.photo_region pr ON pr.photo_id = p.photo_id AND pr.level = 'country'
LEFT JOIN geofix.region r ON r.region_id = pr.region_id
WHERE d.name = ANY (%(datasets)s) GROUP BY d.name ORDER BY d.name

-- BY_REGION
SELECT r.code, r.name, count(*) AS photos, count(*) FILTER (WHERE pr.distance_m > 0) AS by_distance
FROM geofix.photo_record p
JOIN geofix.dataset d USING (dataset_id)
JOIN geofix.photo_region pr ON pr.photo_id = p.photo_id AND pr.level = %(level)s
JOIN geofix.region r ON r.region_id = pr.region_id
WHERE d.name = ANY (%(datasets)s) GROUP BY r.code, r.name ORDER BY photos DESC, r.code LIMIT %(limit)s

-- TILES
SELECT t.s2_id, t.coverage, t.captured_at::text, t.aerial_raster_ids FROM geofix.aerial_tile t JOIN geofix.dataset d USING (dataset_id)
WHERE d.name = %(source)s ORDER BY t.s2_id, t.captured_at

-- TILE_DATES
SELECT e.aerial_tile_id, t.s2_id, t.captured_at::text FROM geofix.aerial_embedding e
JOIN geofix.aerial_tile t USING (aerial_tile_id) JOIN geofix.dataset d USING (dataset_id)
WHERE e.model_id = %(model_id)s AND d.name = %(source)s ORDER BY e.aerial_tile_id

-- COUNTRY_SHAPES
SELECT r.code, public.ST_AsEWKB(public.ST_SimplifyPreserveTopology(r.geom, 0.1)), count(p.photo_id) AS photos
FROM geofix.region r
LEFT JOIN geofix.photo_region pr ON pr.region_id = r.region_id
LEFT JOIN geofix.photo_record p
  ON p.photo_id = pr.photo_id AND p.dataset_id = (SELECT dataset_id FROM geofix.dataset WHERE name = %(dataset)s)
WHERE r.level = 'country' GROUP BY r.region_id ORDER BY r.code

-- CREDITS
SELECT DISTINCT d.name, d.licence, d.attribution FROM geofix.dataset d WHERE d.name = ANY (%(datasets)s) ORDER BY 1
