-- PICTURES
WITH asked AS (
  SELECT t.*, row_number() OVER (ORDER BY t.error_m DESC NULLS FIRST, t.photo_id) AS place, count(*) OVER () AS photos
  FROM geofix.prediction_top1 t JOIN geofix.photo_record p USING (photo_id)
  WHERE t.evaluation = %(name)s AND p.uri IS NOT NULL
), picked AS (
  SELECT * FROM asked
  WHERE place IN (SELECT CASE %(pick)s
      WHEN 'worst' THEN i + 1
      WHEN 'best' THEN photos - i
      ELSE 1 + (i * (photos - 1)) / greatest(least(%(photos)s, photos) - 1, 1) END
    FROM generate_series(0, %(photos)s::bigint - 1) AS i)
)
SELECT a.photo_id, a.source_key, p.uri, a.error_m, a.probability, a.place, a.photos,
       coalesce(p.author, d.attribution) AS attribution, coalesce(p.licence, d.licence) AS licence,
       answer.uri AS answer_uri, answer.source_key AS answer_key, answer.distance_m AS answer_m,
       truth.uri AS truth_uri, truth.source_key AS truth_key, truth.distance_m AS truth_m
FROM picked a
JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, a.geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND a.geom IS NOT NULL AND NOT EXISTS (SELECT FROM geofix.evaluation_photo e
    WHERE e.evaluation_id = a.evaluation_id AND e.photo_id = o.photo_id)
  ORDER BY o.geom OPERATOR(public.<->) a.geom LIMIT 1
) AS answer ON true
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, a.true_geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND NOT EXISTS (SELECT FROM geofix.evaluation_photo e
    WHERE e.evaluation_id = a.evaluation_id AND e.photo_id = o.photo_id)
  ORDER BY o.geom OPERATOR(public.<->) a.true_geom LIMIT 1
) AS truth ON true
ORDER BY a.place
