-- EVALUATIONS
SELECT s.*, e.metrics, e.snapshot_id FROM geofix.evaluation_summary s JOIN geofix.evaluation e USING (evaluation_id)
ORDER BY s.created_at

-- BOUNDS
SELECT public.ST_XMin(b), public.ST_YMin(b), public.ST_XMax(b), public.ST_YMax(b)
FROM (SELECT public.ST_Extent(p.geom) AS b FROM geofix.evaluation_photo ep JOIN geofix.photo_record p USING (photo_id)
      WHERE ep.evaluation_id = geofix.evaluation_id(%(name)s) AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
) AS e WHERE b IS NOT NULL

-- OVERALL
WITH
hit AS (
  SELECT p.* FROM geofix.evaluation_hits(%(name)s, %(threshold_m)s) AS p
  WHERE
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
)
SELECT c.n, c.hits, 100::float8 * c.hits / nullif(c.n, 0) AS accuracy, w.low, w.high, c.median_m, c.answered
FROM (SELECT count(*) AS n, count(*) FILTER (WHERE hit) AS hits, count(error_m) AS answered,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
      FROM hit) AS c
CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w

-- BY_REGION
WITH
hit AS (
  SELECT p.* FROM geofix.evaluation_hits(%(name)s, %(threshold_m)s) AS p
  WHERE
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), counted AS (
  SELECT pr.region_id, count(*) AS n, count(*) FILTER (WHERE h.hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(h.error_m, 'Infinity'::float8)) AS median_m
  FROM hit h LEFT JOIN geofix.photo_region pr ON pr.photo_id = h.photo_id AND pr.level = %(level)s
  GROUP BY pr.region_id
)
SELECT coalesce(r.code, '-') AS code, coalesce(r.name, 'outside every region') AS place, c.n, c.hits,
       100::float8 * c.hits / c.n AS accuracy, w.low, w.high, c.median_m, count(*) OVER () AS places,
       public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s, true), 5) AS shape
FROM counted c LEFT JOIN geofix.region r USING (region_id) CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
ORDER BY c.n DESC, 1 LIMIT %(limit)s

-- BY_CELL
WITH
hit AS (
  SELECT p.* FROM geofix.evaluation_hits(%(name)s, %(threshold_m)s) AS p
  WHERE
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), counted AS (
  SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS n, count(*) FILTER (WHERE hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
  FROM hit GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, geofix.s2_token(s2_id) AS place, c.n, c.hits, 100::float8 * c.hits / c.n AS accuracy,
       w.low, w.high, c.median_m, count(*) OVER () AS places, s2_id
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
ORDER BY c.n DESC, 1 LIMIT %(limit)s

-- QUANTILES
WITH
asked AS (
  SELECT ep.photo_id, p.geom AS true_geom, r.geom, r.error_m, r.score, r.probability, ep.nearest_training_m,
         ep.training_photos_in_cell
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
)
SELECT count(*), percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8))
FROM asked

-- RECALL
WITH asked AS (
  SELECT ep.photo_id, coalesce(p.gps_accuracy_m, 0) AS gps_m
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), known AS (
  SELECT gps_m, count(*) AS n FROM asked GROUP BY 1
), total AS (
  SELECT rs.radius_m, sum(w.n)::bigint AS n
  FROM known w JOIN unnest(%(radii)s::float8[]) AS rs(radius_m) ON w.gps_m <= rs.radius_m GROUP BY 1
), first AS (
  SELECT r.photo_id, rs.radius_m, min(r.rank) AS rank
  FROM geofix.evaluation e JOIN geofix.prediction r USING (evaluation_id)
  JOIN unnest(%(radii)s::float8[]) AS rs(radius_m)
    ON CASE e.comparison WHEN '<' THEN r.error_m < rs.radius_m ELSE r.error_m <= rs.radius_m END
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s)
    AND r.error_m <= (SELECT max(m.radius_m) FROM unnest(%(radii)s::float8[]) AS m(radius_m))
  GROUP BY 1, 2
), found AS (
  SELECT f.rank, f.radius_m, count(*) AS photos
  FROM first f JOIN asked a ON a.photo_id = f.photo_id AND a.gps_m <= f.radius_m GROUP BY 1, 2
), counted AS (
  SELECT ks.k, t.radius_m, t.n, coalesce(sum(f.photos), 0)::bigint AS hits
  FROM total t CROSS JOIN unnest(%(ks)s::integer[]) AS ks(k)
  LEFT JOIN found f ON f.radius_m = t.radius_m AND f.rank <= ks.k GROUP BY 1, 2, 3
)
SELECT c.k, c.radius_m, c.n, c.hits, 100::float8 * c.hits / c.n AS recall, w.low, w.high
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w ORDER BY 1, 2

-- ERROR_LINES
WITH
asked AS (
  SELECT ep.photo_id, p.geom AS true_geom, r.geom, r.error_m, r.score, r.probability, ep.nearest_training_m,
         ep.training_photos_in_cell
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
)
SELECT photo_id, public.ST_X(true_geom) AS true_lon, public.ST_Y(true_geom) AS true_lat, public.ST_X(geom) AS lon,
       public.ST_Y(geom) AS lat, error_m, count(*) OVER () AS photos
FROM asked WHERE geom IS NOT NULL ORDER BY hashint8(photo_id), photo_id LIMIT %(limit)s

-- WORST
WITH
asked AS (
  SELECT ep.photo_id, p.geom AS true_geom, r.geom, r.error_m, r.score, r.probability, ep.nearest_training_m,
         ep.training_photos_in_cell
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(%(name)s) AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong') AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), picked AS (
  SELECT *, count(*) OVER () AS photos FROM asked WHERE %(photo_id)s::bigint IS NULL OR photo_id = %(photo_id)s
  ORDER BY error_m DESC NULLS FIRST, photo_id LIMIT %(limit)s OFFSET %(offset)s
)
SELECT a.photo_id, a.photos, d.name AS dataset, p.source_key, p.uri, p.captured_at, p.heading_deg, a.error_m, a.score,
       a.probability, a.nearest_training_m, a.training_photos_in_cell, public.ST_X(a.true_geom) AS true_lon,
       public.ST_Y(a.true_geom) AS true_lat, public.ST_X(a.geom) AS lon, public.ST_Y(a.geom) AS lat,
       coalesce(p.licence, d.licence) AS licence, coalesce(p.author, d.attribution) AS attribution,
       near.uri AS near_uri, near.source_key AS near_key, near.distance_m AS near_m
FROM picked a
JOIN geofix.photo_record p USING (photo_id)
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN LATERAL (
  SELECT o.uri, o.source_key, public.ST_DistanceSphere(o.geom, a.geom) AS distance_m FROM geofix.photo_record o
  WHERE o.uri IS NOT NULL AND o.photo_id <> a.photo_id AND a.geom IS NOT NULL
  ORDER BY o.geom OPERATOR(public.<->) a.geom LIMIT 1
) AS near ON true
ORDER BY a.error_m DESC NULLS FIRST, a.photo_id

-- ANSWERS
SELECT r.rank, geofix.s2_token(r.s2_id) AS code, public.ST_X(r.geom) AS lon, public.ST_Y(r.geom) AS lat, r.score, r.probability,
       r.error_m
FROM geofix.prediction r
WHERE r.evaluation_id = geofix.evaluation_id(%(name)s) AND r.photo_id = %(photo_id)s ORDER BY r.rank LIMIT %(limit)s

-- BY_BIN
WITH
hit AS (
  SELECT p.* FROM geofix.evaluation_hits(%(name)s, %(threshold_m)s) AS p
  WHERE
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), binned AS (
  SELECT h.hit, h.error_m, width_bucket(CASE %(by)s WHEN 'distance' THEN ep.nearest_training_m::float8
                                        ELSE ep.training_photos_in_cell::float8 END, %(edges)s::float8[]) AS bin
  FROM hit h
  JOIN geofix.evaluation_photo ep ON ep.photo_id = h.photo_id AND ep.evaluation_id = geofix.evaluation_id(%(name)s)
), counted AS (
  SELECT bin, count(*) AS n, count(*) FILTER (WHERE hit) AS hits,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(error_m, 'Infinity'::float8)) AS median_m
  FROM binned GROUP BY 1
)
SELECT c.bin, c.n, c.hits, 100::float8 * c.hits / c.n AS accuracy, w.low, w.high, c.median_m
FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w ORDER BY c.bin NULLS LAST

-- _DIFFERENCE
SELECT code, place, n, gains, losses, 100::float8 * hits_a / n AS accuracy_a, 100::float8 * hits_b / n AS accuracy_b,
       100::float8 * (gains - losses) / n AS difference,
       100 * greatest(-1, (gains - losses - 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS low,
       100 * least(1, (gains - losses + 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS high,
       count(*) OVER () AS places

-- COMPARE_CELLS
WITH
pair AS (
  SELECT p.photo_id, p.s2_id, coalesce(CASE ea.comparison WHEN '<' THEN ra.error_m < %(threshold_m)s ELSE ra.error_m <= %(threshold_m)s END,
                  false) AS hit_a, coalesce(CASE eb.comparison WHEN '<' THEN rb.error_m < %(threshold_m)s ELSE rb.error_m <= %(threshold_m)s END,
                  false) AS hit_b
  FROM geofix.evaluation ea
  JOIN geofix.evaluation_photo a ON a.evaluation_id = ea.evaluation_id
  CROSS JOIN geofix.evaluation eb
  JOIN geofix.evaluation_photo b ON b.evaluation_id = eb.evaluation_id AND b.photo_id = a.photo_id
  JOIN geofix.photo_record p ON p.photo_id = a.photo_id
  LEFT JOIN geofix.prediction ra ON ra.evaluation_id = a.evaluation_id AND ra.photo_id = a.photo_id AND ra.rank = 1
  LEFT JOIN geofix.prediction rb ON rb.evaluation_id = b.evaluation_id AND rb.photo_id = b.photo_id AND rb.rank = 1
  WHERE ea.evaluation_id = geofix.evaluation_id(%(name)s) AND eb.evaluation_id = geofix.evaluation_id(%(other)s)
    AND (ra.photo_id IS NOT NULL OR ea.missing_policy = 'wrong') AND (rb.photo_id IS NOT NULL OR eb.missing_policy = 'wrong')
    AND coalesce(p.gps_accuracy_m, 0) <= %(threshold_m)s AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), counted AS (
  SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS n, count(*) FILTER (WHERE hit_a) AS hits_a, count(*) FILTER (WHERE hit_b) AS hits_b,
         count(*) FILTER (WHERE hit_a AND NOT hit_b) AS gains, count(*) FILTER (WHERE hit_b AND NOT hit_a) AS losses FROM pair GROUP BY 1
), shown AS (
  SELECT *, geofix.s2_token(s2_id) AS code, geofix.s2_token(s2_id) AS place FROM counted
)

SELECT code, place, n, gains, losses, 100::float8 * hits_a / n AS accuracy_a, 100::float8 * hits_b / n AS accuracy_b,
       100::float8 * (gains - losses) / n AS difference,
       100 * greatest(-1, (gains - losses - 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS low,
       100 * least(1, (gains - losses + 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS high,
       count(*) OVER () AS places, s2_id FROM shown ORDER BY n DESC, code LIMIT %(limit)s

-- COMPARE_REGIONS
WITH
pair AS (
  SELECT p.photo_id, p.s2_id, coalesce(CASE ea.comparison WHEN '<' THEN ra.error_m < %(threshold_m)s ELSE ra.error_m <= %(threshold_m)s END,
                  false) AS hit_a, coalesce(CASE eb.comparison WHEN '<' THEN rb.error_m < %(threshold_m)s ELSE rb.error_m <= %(threshold_m)s END,
                  false) AS hit_b
  FROM geofix.evaluation ea
  JOIN geofix.evaluation_photo a ON a.evaluation_id = ea.evaluation_id
  CROSS JOIN geofix.evaluation eb
  JOIN geofix.evaluation_photo b ON b.evaluation_id = eb.evaluation_id AND b.photo_id = a.photo_id
  JOIN geofix.photo_record p ON p.photo_id = a.photo_id
  LEFT JOIN geofix.prediction ra ON ra.evaluation_id = a.evaluation_id AND ra.photo_id = a.photo_id AND ra.rank = 1
  LEFT JOIN geofix.prediction rb ON rb.evaluation_id = b.evaluation_id AND rb.photo_id = b.photo_id AND rb.rank = 1
  WHERE ea.evaluation_id = geofix.evaluation_id(%(name)s) AND eb.evaluation_id = geofix.evaluation_id(%(other)s)
    AND (ra.photo_id IS NOT NULL OR ea.missing_policy = 'wrong') AND (rb.photo_id IS NOT NULL OR eb.missing_policy = 'wrong')
    AND coalesce(p.gps_accuracy_m, 0) <= %(threshold_m)s AND
    (%(lo)s::bigint IS NULL OR p.s2_id BETWEEN %(lo)s AND %(hi)s)
    AND (%(region_code)s::text IS NULL OR EXISTS (
      SELECT FROM geofix.photo_region fr JOIN geofix.region fg USING (region_id)
      WHERE fr.photo_id = p.photo_id AND fr.level = %(region_level)s AND fg.code = %(region_code)s))
), counted AS (
  SELECT pr.region_id, count(*) AS n, count(*) FILTER (WHERE hit_a) AS hits_a, count(*) FILTER (WHERE hit_b) AS hits_b,
         count(*) FILTER (WHERE hit_a AND NOT hit_b) AS gains, count(*) FILTER (WHERE hit_b AND NOT hit_a) AS losses
  FROM pair LEFT JOIN geofix.photo_region pr ON pr.photo_id = pair.photo_id AND pr.level = %(level)s GROUP BY 1
), shown AS (
  SELECT c.*, coalesce(r.code, '-') AS code, coalesce(r.name, 'outside every region') AS place,
         public.ST_AsGeoJSON(public.ST_Simplify(r.geom, %(tolerance)s, true), 5) AS shape
  FROM counted c LEFT JOIN geofix.region r USING (region_id)
)

SELECT code, place, n, gains, losses, 100::float8 * hits_a / n AS accuracy_a, 100::float8 * hits_b / n AS accuracy_b,
       100::float8 * (gains - losses) / n AS difference,
       100 * greatest(-1, (gains - losses - 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS low,
       100 * least(1, (gains - losses + 1.959963984540054 * sqrt(gains + losses + 1 - (gains - losses)::float8 ^ 2 / (n + 2))) / (n + 2)) AS high,
       count(*) OVER () AS places, shape FROM shown ORDER BY n DESC, code LIMIT %(limit)s
