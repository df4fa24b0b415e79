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

-- `level` is the level of a region (country, admin1, a user's own); percent with a Wilson interval. The median counts
-- a photo without an answer as infinitely wrong; `evaluation.metrics` has the median of the answered ones. The rows are
-- those of evaluation_hits; written out, and with photos of a poor position taken away instead of the good ones looked
-- up, every table is read once, side by side by several workers.
CREATE OR REPLACE FUNCTION geofix.accuracy_by_region(evaluation text, level text, threshold_m double precision)
RETURNS TABLE (
  region_code text, region_name text, n bigint, hits bigint, accuracy double precision, low double precision,
  high double precision, median_m double precision, geom public.geometry)
LANGUAGE sql STABLE AS $$
  WITH asked AS MATERIALIZED (
    SELECT e.comparison = '<' AS strict, e.missing_policy = 'wrong' AS keeps_unanswered
    FROM geofix.evaluation e WHERE e.evaluation_id = geofix.evaluation_id(evaluation)
  ), counted AS (
    SELECT pr.region_id, count(*) AS n,
           count(*) FILTER (WHERE CASE WHEN (SELECT strict FROM asked) THEN h.error_m < threshold_m ELSE h.error_m <= threshold_m END) AS hits,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(h.error_m, 'Infinity'::float8)) AS median_m
    FROM geofix.evaluation_photo ep
    LEFT JOIN geofix.prediction h
      ON h.evaluation_id = geofix.evaluation_id(evaluation) AND h.photo_id = ep.photo_id AND h.rank = 1
    LEFT JOIN geofix.photo_region pr ON pr.photo_id = ep.photo_id AND pr.level = accuracy_by_region.level
    WHERE ep.evaluation_id = geofix.evaluation_id(evaluation)
      AND (h.photo_id IS NOT NULL OR (SELECT keeps_unanswered FROM asked))
      AND NOT EXISTS (SELECT FROM geofix.photo_record p WHERE p.photo_id = ep.photo_id AND p.gps_accuracy_m > threshold_m)
    GROUP BY pr.region_id
  )
  SELECT coalesce(r.code, '-'), coalesce(r.name, 'outside every region'), c.n, c.hits, 100.0 * c.hits / c.n,
         w.low, w.high, c.median_m, r.geom
  FROM counted c
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
           percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(h.error_m, 'Infinity'::float8)) AS median_m
    FROM geofix.evaluation_hits(evaluation, threshold_m) AS h GROUP BY 1
  )
  SELECT c.s2_id, geofix.s2_token(c.s2_id), c.n, c.hits, 100.0 * c.hits / c.n, w.low, w.high, c.median_m,
         geofix.s2_polygon(c.s2_id)
  FROM counted c CROSS JOIN LATERAL geofix.wilson(c.hits, c.n) AS w
  ORDER BY c.s2_id
$$;

-- What is known of every cell of a level: photos, their years, aerial dates, and the kinds of code it has. Tiles and
-- codes of finer levels count in the cell that holds them. Parameters are written with the function's name before them:
-- a bare `level` would be the column of a joined table.
CREATE OR REPLACE FUNCTION geofix.coverage(level integer, region public.geometry DEFAULT NULL)
RETURNS TABLE (
  s2_id bigint, s2_token text, photos bigint, capture_years integer[], aerial_dates date[], has_prototype boolean,
  has_aerial boolean, geom public.geometry)
LANGUAGE sql STABLE AS $$
  WITH photo AS (
    SELECT geofix.s2_parent(p.s2_id, coverage.level) AS s2_id, count(*) AS photos,
           array_agg(DISTINCT extract(year FROM p.captured_at)::integer ORDER BY extract(year FROM p.captured_at)::integer)
             FILTER (WHERE p.captured_at IS NOT NULL) AS capture_years
    FROM geofix.photo_record p WHERE region IS NULL OR public.ST_Covers(region, p.geom) GROUP BY 1
  ), aerial AS (
    SELECT geofix.s2_parent(t.s2_id, coverage.level) AS s2_id,
           array_agg(DISTINCT t.captured_at ORDER BY t.captured_at) FILTER (WHERE t.captured_at IS NOT NULL) AS aerial_dates
    FROM geofix.aerial_tile t
    WHERE t.level >= coverage.level AND (region IS NULL OR public.ST_Covers(region, geofix.s2_center(t.s2_id))) GROUP BY 1
  ), code AS (
    SELECT geofix.s2_parent(c.s2_id, coverage.level) AS s2_id, bool_or(c.has_prototype) AS has_prototype,
           bool_or(c.has_aerial) AS has_aerial
    FROM geofix.code_set s JOIN geofix.cell_code c USING (code_set_id)
    WHERE s.state IN ('ready', 'stale') AND s.level >= coverage.level
      AND (region IS NULL OR public.ST_Covers(region, geofix.s2_center(c.s2_id))) GROUP BY 1
  )
  SELECT s2_id, geofix.s2_token(s2_id), coalesce(p.photos, 0), p.capture_years, a.aerial_dates,
         coalesce(c.has_prototype, false), coalesce(c.has_aerial, false), geofix.s2_polygon(s2_id)
  FROM photo p FULL JOIN aerial a USING (s2_id) FULL JOIN code c USING (s2_id)
  ORDER BY s2_id
$$;
