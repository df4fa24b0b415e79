-- COUNT_PHOTOS
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = p.photo_id))
FROM geofix.photo_record p WHERE p.uri IS NOT NULL
  AND (%(datasets)s::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND p.s2_id BETWEEN %(first)s AND %(last)s

-- COUNT_TILES
SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (
    SELECT 1 FROM geofix.aerial_embedding e WHERE e.model_id = %(model_id)s AND e.aerial_tile_id = t.aerial_tile_id))
FROM geofix.aerial_tile t
WHERE (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND t.s2_id BETWEEN %(first)s AND %(last)s

-- PHOTOS
SELECT p.photo_id, p.s2_id, p.uri FROM geofix.photo_record p
WHERE p.uri IS NOT NULL
  AND (%(datasets)s::text[] IS NULL
       OR p.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND p.s2_id BETWEEN %(first)s AND %(last)s AND (p.s2_id, p.photo_id) > (%(first)s, %(after)s)
  AND NOT EXISTS (SELECT 1 FROM geofix.photo_embedding e WHERE e.model_id = %(model_id)s AND e.photo_id = p.photo_id)
ORDER BY p.s2_id, p.photo_id LIMIT %(page)s

-- TILES
SELECT t.aerial_tile_id, t.s2_id, t.side_m, t.aerial_raster_ids FROM geofix.aerial_tile t
WHERE (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
  AND t.s2_id BETWEEN %(first)s AND %(last)s AND (t.s2_id, t.aerial_tile_id) > (%(first)s, %(after)s)
  AND NOT EXISTS (SELECT 1 FROM geofix.aerial_embedding e
                  WHERE e.model_id = %(model_id)s AND e.aerial_tile_id = t.aerial_tile_id)
ORDER BY t.s2_id, t.aerial_tile_id LIMIT %(page)s
