-- SEARCHABLE_SETS
SELECT s.name, m.name AS model, s.recipe, s.level, s.state, s.stale_reason, s.cells, s.with_prototype, s.with_aerial,
       s.calibration ? 'coverage' AS calibrated, s.created_at
FROM geofix.code_set s JOIN geofix.model m USING (model_id)
WHERE s.state IN ('ready', 'stale')
ORDER BY array_position(ARRAY['hybrid', 'prototype', 'cellmean', 'aerial'], s.recipe), s.created_at DESC

-- BLOCKS
SELECT b.s2_id, b.cells FROM geofix.cell_block b JOIN geofix.code_set s USING (code_set_id)
WHERE s.name = %(code_set)s ORDER BY b.s2_id

-- NEAR_PHOTOS
SELECT p.photo_id, p.source_key, p.uri, p.captured_at, p.heading_deg, public.ST_X(p.geom) AS lon, public.ST_Y(p.geom) AS lat,
       public.ST_DistanceSphere(p.geom, at.geom) AS distance_m, d.name AS dataset,
       coalesce(p.licence, d.licence) AS licence, coalesce(p.author, d.attribution) AS attribution
FROM (SELECT public.ST_SetSRID(public.ST_MakePoint(%(lon)s, %(lat)s), 4326) AS geom) AS at
CROSS JOIN LATERAL (
  SELECT * FROM geofix.photo_record o ORDER BY o.geom OPERATOR(public.<->) at.geom LIMIT %(limit)s
) AS p
JOIN geofix.dataset d USING (dataset_id)
ORDER BY distance_m

-- CELL_TILES
SELECT t.aerial_tile_id, t.level, t.s2_id, t.captured_at, t.side_m, t.coverage, d.name AS dataset, d.licence, d.attribution,
       (SELECT jsonb_agg(jsonb_build_object('uri', r.uri, 'kind', r.kind, 'crs', r.crs, 'reading', r.reading)
                         ORDER BY array_position(t.aerial_raster_ids, r.aerial_raster_id))
        FROM geofix.aerial_raster r WHERE r.aerial_raster_id = ANY (t.aerial_raster_ids)) AS rasters
FROM geofix.aerial_tile t JOIN geofix.dataset d USING (dataset_id)
WHERE t.s2_id = ANY (%(holding)s) OR t.s2_id BETWEEN %(lo)s AND %(hi)s
ORDER BY (t.s2_id = %(cell)s) DESC, t.level DESC, t.captured_at DESC NULLS LAST LIMIT %(limit)s
