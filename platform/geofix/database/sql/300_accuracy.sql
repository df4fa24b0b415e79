-- Wilson score interval of a proportion (E. B. Wilson, 1927), in percent; z = 1.96 for 95 %.
CREATE OR REPLACE FUNCTION geofix.wilson(
  hits bigint, n bigint, z double precision DEFAULT 1.959963984540054,
  OUT low double precision, OUT high double precision
) LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN n > 0 THEN 100 * greatest(0, (hits + z * z / 2 - z * sqrt(hits::float8 * (n - hits) / n + z * z / 4)) / (n + z * z)) END,
         CASE WHEN n > 0 THEN 100 * least(1, (hits + z * z / 2 + z * sqrt(hits::float8 * (n - hits) / n + z * z / 4)) / (n + z * z)) END
$$;

CREATE OR REPLACE FUNCTION geofix.evaluation_id(evaluation text) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  found_id bigint;
BEGIN
  SELECT e.evaluation_id INTO found_id FROM geofix.evaluation e WHERE e.name = evaluation;
  IF found_id IS NULL THEN
    RAISE EXCEPTION 'no evaluation is named %; SELECT evaluation FROM geofix.evaluation_summary',
      quote_nullable(evaluation) USING ERRCODE = '22023';
  END IF;
  RETURN found_id;
END $$;

-- One row per photo asked: its first answer against a threshold. A photo without an answer is wrong under the
-- policy 'wrong' and left out under 'drop'; a photo whose own position is worse than the threshold is left out.
CREATE OR REPLACE FUNCTION geofix.evaluation_hits(evaluation text, threshold_m double precision)
RETURNS TABLE (photo_id bigint, s2_id bigint, error_m double precision, hit boolean)
LANGUAGE sql STABLE AS $$
  SELECT ep.photo_id, p.s2_id, r.error_m,
         coalesce(CASE e.comparison WHEN '<' THEN r.error_m < threshold_m ELSE r.error_m <= threshold_m END, false)
  FROM geofix.evaluation e
  JOIN geofix.evaluation_photo ep USING (evaluation_id)
  JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
  LEFT JOIN geofix.prediction r
    ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
  WHERE e.evaluation_id = geofix.evaluation_id(evaluation)
    AND (r.photo_id IS NOT NULL OR e.missing_policy = 'wrong')
    AND coalesce(p.gps_accuracy_m, 0) <= threshold_m
$$;

-- Values in order. A function of its own because a query within a query is never given to parallel workers.
CREATE OR REPLACE FUNCTION geofix.sorted(numbers double precision[]) RETURNS double precision[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ARRAY(SELECT unnest(numbers) AS v ORDER BY v)
$$;

-- Median of the values of two sorted arrays together, which costs little where both are alike. Its middle values lie
-- between the middle values of the arrays: at most (na + 1) / 2 - 1 + (nb + 1) / 2 - 1 values are below the lower of these,
-- and at least na / 2 + 1 + nb / 2 + 1 not above the upper one. So only what lies between is put in order;
-- width_bucket counts the values up to a limit by halving. Of two middle values it is the mean, infinite where one is.
CREATE OR REPLACE FUNCTION geofix.median_of_sorted(a double precision[], b double precision[]) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN low = high THEN low ELSE low + 0.5 * (high - low) END
  FROM (SELECT cardinality(a) AS na, cardinality(b) AS nb) AS size
  CROSS JOIN LATERAL (
    SELECT least(a[(na + 1) / 2], b[(nb + 1) / 2]) AS lower, greatest(a[na / 2 + 1], b[nb / 2 + 1]) AS upper) AS middle
  CROSS JOIN LATERAL (
    SELECT width_bucket(lower, a) AS from_a, width_bucket(upper, a) AS to_a,
           width_bucket(lower, b) AS from_b, width_bucket(upper, b) AS to_b) AS place
  CROSS JOIN LATERAL (SELECT geofix.sorted(a[from_a + 1:to_a] || b[from_b + 1:to_b]) AS between) AS ordered
  CROSS JOIN LATERAL (
    SELECT coalesce(between[(na + nb + 1) / 2 - from_a - from_b], lower) AS low,
           coalesce(between[(na + nb) / 2 + 1 - from_a - from_b], lower) AS high) AS wanted
$$;

-- How many of sorted errors are within a distance.
CREATE OR REPLACE FUNCTION geofix.count_within(errors double precision[], distance_m double precision, strictly boolean)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN strictly THEN coalesce(array_position(errors, distance_m) - 1, width_bucket(distance_m, errors))
              ELSE width_bucket(distance_m, errors) END
$$;

-- Errors of the first answers, in order, per region of a level (0: outside every one), for the photos of a range of ids
-- whose position is known within a distance; a photo without an answer is infinitely wrong. Photos of a poor position
-- are taken away instead of the good ones looked up, and the range stands at every table: each is read once, in the
-- order of the photos.
CREATE OR REPLACE FUNCTION geofix.region_errors(
  asked_id bigint, level text, known_m double precision, keeps_unanswered boolean, first_id bigint, last_id bigint)
RETURNS TABLE (region_id bigint, answered bigint, errors double precision[])
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT coalesce(c.region_id, 0), c.answered, geofix.sorted(c.errors)
  FROM (
    SELECT pr.region_id, count(r.error_m) AS answered, array_agg(coalesce(r.error_m, 'Infinity')) AS errors
    FROM geofix.evaluation_photo ep
    LEFT JOIN geofix.prediction r
      ON r.evaluation_id = asked_id AND r.photo_id = ep.photo_id AND r.rank = 1 AND r.photo_id BETWEEN first_id AND last_id
    LEFT JOIN geofix.photo_region pr
      ON pr.photo_id = ep.photo_id AND pr.level = region_errors.level AND pr.photo_id BETWEEN first_id AND last_id
    WHERE ep.evaluation_id = asked_id AND ep.photo_id BETWEEN first_id AND last_id
      AND (r.photo_id IS NOT NULL OR keeps_unanswered)
      AND NOT EXISTS (
        SELECT FROM geofix.photo_record p
        WHERE p.photo_id = ep.photo_id AND p.photo_id BETWEEN first_id AND last_id AND p.gps_accuracy_m > known_m)
    GROUP BY pr.region_id
  ) AS c
$$;

-- Photos whose position is known within `known_m`, those of them answered, hits at each distance and median error, per
-- region of a level (0: outside every one; a level that no region has: all photos together). Photos are counted in two
-- halves that two processes share. Hash joins are off because all tables are read in the same order, and merging a
-- million rows takes half the time; a plan made without the values would know no ranges.
CREATE OR REPLACE FUNCTION geofix.region_counts(
  asked_id bigint, level text, known_m double precision, distances_m double precision[])
RETURNS TABLE (
  region_id bigint, distance_m double precision, n bigint, hits bigint, answered bigint, median_m double precision)
LANGUAGE plpgsql STABLE ROWS 300 SET enable_hashjoin = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  strictly boolean;
  keeps_unanswered boolean;
  middle bigint;
  most CONSTANT bigint := 9223372036854775807;
BEGIN
  SELECT e.comparison = '<', e.missing_policy = 'wrong' INTO strictly, keeps_unanswered
  FROM geofix.evaluation e WHERE e.evaluation_id = asked_id;
  SELECT (min(ep.photo_id) + max(ep.photo_id)) / 2 INTO middle
  FROM geofix.evaluation_photo ep WHERE ep.evaluation_id = asked_id;
  RETURN QUERY
  SELECT c.region_id, d.distance_m, (cardinality(c.a) + cardinality(c.b))::bigint,
         least(c.answered, geofix.count_within(c.a, d.distance_m, strictly) + geofix.count_within(c.b, d.distance_m, strictly)),
         c.answered, c.median_m
  FROM (
    SELECT u.*, geofix.median_of_sorted(u.a, u.b) AS median_m
    FROM (
      SELECT h.region_id, sum(h.answered)::bigint AS answered,
             coalesce(min(h.errors) FILTER (WHERE h.half = 1), '{}') AS a,
             coalesce(min(h.errors) FILTER (WHERE h.half = 2), '{}') AS b
      FROM (
        SELECT 1 AS half, e.*
        FROM geofix.region_errors(asked_id, level, known_m, keeps_unanswered, -most, middle) AS e
        UNION ALL
        SELECT 2, e.* FROM geofix.region_errors(asked_id, level, known_m, keeps_unanswered, middle + 1, most) AS e
      ) AS h
      GROUP BY h.region_id
    ) AS u OFFSET 0
  ) AS c
  JOIN unnest(distances_m) AS d (distance_m) ON d.distance_m IS NOT NULL;
END $$;

-- `level` is the level of a region (country, admin1, a user's own); percent with a Wilson interval. The median counts
-- a photo without an answer as infinitely wrong; `evaluation.metrics` has the median of the answered ones. The rows are
-- those of evaluation_hits.
CREATE OR REPLACE FUNCTION geofix.accuracy_by_region(evaluation text, level text, threshold_m double precision)
RETURNS TABLE (
  region_code text, region_name text, n bigint, hits bigint, accuracy double precision, low double precision,
  high double precision, median_m double precision, geom public.geometry)
LANGUAGE sql STABLE AS $$
  SELECT coalesce(r.code, '-'), coalesce(r.name, 'outside every region'), c.n, c.hits, 100.0 * c.hits / c.n,
         w.low, w.high, c.median_m, r.geom
  FROM geofix.region_counts(geofix.evaluation_id(evaluation), level, threshold_m, ARRAY[threshold_m]) AS c
  LEFT JOIN geofix.region r USING (region_id)
  CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
  ORDER BY c.n DESC, 1
$$;

CREATE OR REPLACE FUNCTION geofix.accuracy_by_cell(evaluation text, level integer, threshold_m double precision)
RETURNS TABLE (
  s2_id bigint, s2_token text, n bigint, hits bigint, accuracy double precision, low double precision,
  high double precision, median_m double precision, geom public.geometry)
LANGUAGE sql STABLE AS $$
  WITH counted AS (
    SELECT geofix.s2_parent(h.s2_id, accuracy_by_cell.level) AS s2_id, count(*) AS n, count(*) FILTER (WHERE h.hit) AS hits,
           -- between two infinities it is no number
           coalesce(nullif(percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(h.error_m, 'Infinity'::float8)), 'NaN'),
                    'Infinity') AS median_m
    FROM geofix.evaluation_hits(evaluation, threshold_m) AS h GROUP BY 1
  )
  SELECT c.s2_id, geofix.s2_token(c.s2_id), c.n, c.hits, 100.0 * c.hits / c.n, w.low, w.high, c.median_m,
         geofix.s2_polygon(c.s2_id)
  FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
  ORDER BY c.s2_id
$$;
