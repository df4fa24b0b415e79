-- The coarsest level whose cells were counted, still fit, and add up to those of a level; NULL: none does. A tile counts
-- in cells of its own level and coarser ones: one that is coarser than the cells that were counted is in none of them, but
-- in those of the level asked for.
CREATE OR REPLACE FUNCTION geofix.fitting_level(level integer) RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT g.level FROM geofix.fitting_grid g
  WHERE g.level >= fitting_level.level
    AND NOT EXISTS (SELECT FROM unnest(g.tile_levels) AS t (level) WHERE t.level >= fitting_level.level AND t.level < g.level)
  ORDER BY g.level LIMIT 1
$$;

-- What is known of every cell of a level: photos, their years, aerial dates, and the kinds of code it has. Tiles and
-- codes of finer levels count in the cell that holds them. Parameters are written with the function's name before them:
-- a bare `level` would be the column of a joined table.
-- Cells that were counted and fit are read as they are, or added up to coarser ones; else photos and tiles are counted, as
-- they are inside a region: a photo counts there by its own position. Of the three parts of `seen` one is read. Counted
-- cells know the first and the last time, so years and dates are looked up where there may be more than one.
-- Token, shape, years and dates stand outside the cells in order, where a statement makes them of the rows that it keeps
-- alone: shapes of a million cells take twenty seconds.
CREATE OR REPLACE FUNCTION geofix.coverage(level integer, region public.geometry DEFAULT NULL)
RETURNS TABLE (
  s2_id bigint, s2_token text, photos bigint, capture_years integer[], aerial_dates date[], has_prototype boolean,
  has_aerial boolean, geom public.geometry)
LANGUAGE sql STABLE AS $$
  SELECT c.s2_id, geofix.s2_token(c.s2_id), c.photos,
         CASE
           WHEN c.first_at IS NULL THEN c.capture_years
           WHEN extract(year FROM c.first_at) = extract(year FROM c.last_at) THEN ARRAY[extract(year FROM c.first_at)::integer]
           ELSE ARRAY(
             SELECT DISTINCT extract(year FROM p.captured_at)::integer FROM geofix.photo_record p
             WHERE p.s2_id BETWEEN geofix.s2_range_min(c.s2_id) AND geofix.s2_range_max(c.s2_id)
               AND p.captured_at IS NOT NULL ORDER BY 1)
         END,
         CASE
           WHEN c.last_aerial IS NULL THEN c.aerial_dates
           WHEN c.tiles = 1 THEN ARRAY[c.last_aerial]
           ELSE ARRAY(
             SELECT DISTINCT t.captured_at FROM geofix.aerial_tile t
             WHERE t.s2_id BETWEEN geofix.s2_range_min(c.s2_id) AND geofix.s2_range_max(c.s2_id)
               AND t.level >= coverage.level AND t.captured_at IS NOT NULL ORDER BY 1)
         END,
         c.has_prototype, c.has_aerial, geofix.s2_polygon(c.s2_id)
  FROM (
    WITH grid AS MATERIALIZED (
      SELECT CASE WHEN region IS NULL THEN geofix.fitting_level(coverage.level) END AS level
    ), photo AS (
      SELECT geofix.s2_parent(p.s2_id, coverage.level) AS s2_id, count(*) AS photos,
             array_agg(DISTINCT extract(year FROM p.captured_at)::integer ORDER BY extract(year FROM p.captured_at)::integer)
               FILTER (WHERE p.captured_at IS NOT NULL) AS capture_years
      FROM geofix.photo_record p
      WHERE (SELECT level FROM grid) IS NULL AND (region IS NULL OR public.ST_Covers(region, p.geom)) GROUP BY 1
    ), aerial AS (
      SELECT geofix.s2_parent(t.s2_id, coverage.level) AS s2_id,
             array_agg(DISTINCT t.captured_at ORDER BY t.captured_at) FILTER (WHERE t.captured_at IS NOT NULL) AS aerial_dates
      FROM geofix.aerial_tile t
      WHERE (SELECT level FROM grid) IS NULL AND t.level >= coverage.level
        AND (region IS NULL OR public.ST_Covers(region, geofix.s2_center(t.s2_id))) GROUP BY 1
    ), seen AS (
      SELECT s2_id, coalesce(p.photos, 0) AS photos, p.capture_years, a.aerial_dates, NULL::timestamptz AS first_at,
             NULL::timestamptz AS last_at, NULL::bigint AS tiles, NULL::date AS last_aerial
      FROM photo p FULL JOIN aerial a USING (s2_id)
      UNION ALL
      SELECT g.s2_id, g.photos, NULL, NULL, g.first_captured_at, g.last_captured_at, g.aerial_tiles, g.last_aerial
      FROM geofix.grid_cell g
      WHERE g.level = coverage.level AND (SELECT level FROM grid) = coverage.level
      UNION ALL
      SELECT geofix.s2_parent(g.s2_id, coverage.level), sum(g.photos)::bigint, NULL, NULL, min(g.first_captured_at),
             max(g.last_captured_at), sum(g.aerial_tiles)::bigint, max(g.last_aerial)
      FROM geofix.grid_cell g
      WHERE g.level = (SELECT level FROM grid) AND (SELECT level FROM grid) > coverage.level GROUP BY 1
    ), code AS (
      SELECT geofix.s2_parent(c.s2_id, coverage.level) AS s2_id, bool_or(c.has_prototype) AS has_prototype,
             bool_or(c.has_aerial) AS has_aerial
      FROM geofix.code_set s JOIN geofix.cell_code c USING (code_set_id)
      WHERE s.state IN ('ready', 'stale') AND s.level >= coverage.level
        AND (region IS NULL OR public.ST_Covers(region, geofix.s2_center(c.s2_id))) GROUP BY 1
    )
    SELECT s2_id, coalesce(seen.photos, 0) AS photos, seen.capture_years, seen.aerial_dates, seen.first_at, seen.last_at,
           seen.tiles, seen.last_aerial, coalesce(code.has_prototype, false) AS has_prototype,
           coalesce(code.has_aerial, false) AS has_aerial
    FROM seen FULL JOIN code USING (s2_id)
    ORDER BY s2_id
  ) AS c
$$;
