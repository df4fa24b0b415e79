-- EVALUATIONS
SELECT s.*, e.metrics, e.snapshot_id FROM geofix.evaluation_summary s JOIN geofix.evaluation e USING (evaluation_id)
ORDER BY s.created_at, evaluation_id

-- HAS_PHOTOS
SELECT EXISTS (SELECT FROM geofix.evaluation_photo WHERE evaluation_id = geofix.evaluation_id(%(name)s))

-- COMPARISON
SELECT comparison FROM geofix.evaluation WHERE evaluation_id = geofix.evaluation_id(%(name)s)

-- ASKED
SELECT ep.photo_id, p.s2_id, public.ST_X(p.geom), public.ST_Y(p.geom), coalesce(p.gps_accuracy_m, 0)::float8,
       coalesce(r.error_m, 'NaN'), coalesce(ep.nearest_training_m, 'NaN'),
       coalesce(ep.training_photos_in_cell::float4, 'NaN'), hashint8(ep.photo_id)
FROM geofix.evaluation e
JOIN geofix.evaluation_photo ep USING (evaluation_id)
CROSS JOIN LATERAL (SELECT * FROM geofix.photo_record o WHERE o.photo_id = ep.photo_id OFFSET 0) AS p
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong')
ORDER BY ep.photo_id

-- REGION_OF
SELECT ep.photo_id, pr.region_id
FROM geofix.evaluation_photo ep
CROSS JOIN LATERAL (SELECT o.region_id FROM geofix.photo_region o
                    WHERE o.photo_id = ep.photo_id AND o.level = %(level)s OFFSET 0) AS pr
WHERE ep.evaluation_id = geofix.evaluation_id(%(name)s)

-- REGION
SELECT region_id FROM geofix.region WHERE level = %(level)s AND code = %(code)s

-- PLACES
SELECT r.region_id, r.code, r.name AS place,
       public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s::float8, true), 5) AS shape
FROM geofix.region r WHERE r.region_id = ANY (%(ids)s::bigint[])

-- BEST
SELECT r.photo_id, width_bucket(r.rank - 1, %(ks)s::integer[]), min(r.error_m)
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.error_m <= %(most_m)s AND r.rank <= %(most_k)s GROUP BY 1, 2

-- ERROR_LINES
SELECT i.photo_id, public.ST_X(p.geom) AS true_lon, public.ST_Y(p.geom) AS true_lat, public.ST_X(r.geom) AS lon,
       public.ST_Y(r.geom) AS lat, r.error_m
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS i (photo_id, place)
JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.prediction r ON r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = i.photo_id AND r.rank = 1
ORDER BY i.place

-- PHOTOS
SELECT i.photo_id, d.name AS dataset, p.source_key, p.uri, p.captured_at, p.heading_deg, r.error_m, r.score, r.probability,
       ep.nearest_training_m, ep.training_photos_in_cell, public.ST_X(p.geom) AS true_lon, public.ST_Y(p.geom) AS true_lat,
       public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, coalesce(p.licence, d.licence) AS licence,
       coalesce(p.author, d.attribution) AS attribution, near.uri AS near_uri, near.source_key AS near_key,
       near.distance_m AS near_m
FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS i (photo_id, place)
JOIN geofix.evaluation e ON e.evaluation_id = geofix.evaluation_id(%(name)s)
JOIN geofix.evaluation_photo ep ON ep.evaluation_id = e.evaluation_id AND ep.photo_id = i.photo_id
JOIN geofix.photo_record p ON p.photo_id = i.photo_id
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, r.geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND o.photo_id <> i.photo_id AND r.geom IS NOT NULL
  ORDER BY o.geom OPERATOR(public.<->) r.geom LIMIT 1
) AS near ON true
WHERE r.photo_id IS NOT NULL OR e.missing_policy = 'wrong'
ORDER BY i.place

-- ANSWERS
SELECT r.rank, geofix.s2_token(r.s2_id) AS code, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, r.score, r.probability,
       r.error_m
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = %(photo_id)s ORDER BY r.rank LIMIT %(limit)s
