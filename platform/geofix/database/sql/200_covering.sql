-- From any geometry to few ranges of S2 leaf ids.
-- A cell belongs to a region when its centre lies in it. `inside` says that every cell of the range does;
-- ranges on the border are to be re-checked by centre. Outlines of cells follow the geodesic to within 2.5 m times the
-- tangent of the latitude (s2_polygon), far less than the 64 m from the border of a level-16 cell to its centre.

-- Earlier forms of what is below.
DROP FUNCTION IF EXISTS geofix.scope_condition(bigint, public.geometry);
DROP FUNCTION IF EXISTS geofix.s2_refine(bigint[], public.geometry, integer, integer);

-- Leaf ids lo to hi, both inclusive, as a range. No bigint follows the last leaf of face 3: there the end is exclusive,
-- which takes away that one leaf, a centimetre wide.
CREATE OR REPLACE FUNCTION geofix.s2_ids(lo bigint, hi bigint) RETURNS int8range
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN int8range(lo, CASE WHEN hi < 9223372036854775807 THEN hi + 1 ELSE hi END);

-- Splits cells that cross the border into their children, until more ranges than asked for would result or the finest
-- level is reached. `done` are cells wholly inside.
CREATE OR REPLACE FUNCTION geofix.s2_refine(
  done bigint[], border bigint[], region public.geometry, max_ranges integer, finest_level integer
) RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  next_done bigint[];
  next_border bigint[];
  cell_level integer;
BEGIN
  LOOP
    -- A cell on the border has a child on the border: beyond so many, splitting all can only give more.
    EXIT WHEN cardinality(border) = 0 OR cardinality(border) > max_ranges;
    SELECT min(geofix.s2_level(b.id)) INTO cell_level FROM unnest(border) AS b(id);
    EXIT WHEN cell_level >= finest_level;
    -- Split the coarsest border cells into their four children.
    SELECT coalesce(array_agg(c.id) FILTER (WHERE c.covered), '{}'),
           coalesce(array_agg(c.id) FILTER (WHERE NOT c.covered), '{}')
      INTO next_done, next_border
      FROM (SELECT k.id, public.ST_Covers(region, k.geom) AS covered
            FROM (SELECT ch.id, geofix.s2_polygon(ch.id) AS geom
                  FROM unnest(border) AS b(id)
                  CROSS JOIN LATERAL geofix.s2_children(b.id) AS ch(id)
                  WHERE geofix.s2_level(b.id) = cell_level) AS k
            WHERE public.ST_Intersects(region, k.geom)) AS c;
    next_border := next_border || ARRAY(
      SELECT b.id FROM unnest(border) AS b(id) WHERE geofix.s2_level(b.id) > cell_level);
    EXIT WHEN (SELECT count(*) FROM geofix.s2_merge(done || next_done, next_border)) > max_ranges;
    done := done || next_done;
    border := next_border;
  END LOOP;
  RETURN QUERY SELECT m.lo, m.hi, m.inside FROM geofix.s2_merge(done, border) AS m ORDER BY m.lo;
END $$;

-- Neighbouring cells of one kind become one range. Too many ranges are the caller's matter.
CREATE OR REPLACE FUNCTION geofix.s2_merge(inside_cells bigint[], border_cells bigint[])
RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  WITH cell AS (
    SELECT (geofix.s2_range(u.id)).*, true AS inside FROM unnest(inside_cells) AS u(id)
    UNION ALL
    SELECT (geofix.s2_range(u.id)).*, false FROM unnest(border_cells) AS u(id)
  ), marked AS (
    -- Consecutive leaf ids differ by two.
    SELECT c.*, CASE WHEN lag(c.hi) OVER w + 2 = c.lo AND lag(c.inside) OVER w = c.inside THEN 0 ELSE 1 END AS starts
    FROM cell c WINDOW w AS (ORDER BY c.lo)
  ), grouped AS (
    SELECT m.*, sum(m.starts) OVER (ORDER BY m.lo) AS island FROM marked m
  )
  SELECT min(g.lo), max(g.hi), bool_and(g.inside) FROM grouped g GROUP BY g.island
$$;

-- For analysts: ranges that cover any geometry, without looking at any code set.
CREATE OR REPLACE FUNCTION geofix.s2_covering(region public.geometry, max_ranges integer DEFAULT 64)
RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  span double precision;
  start_level integer;
  start bigint[];
BEGIN
  IF region IS NULL OR public.ST_IsEmpty(region) THEN
    RETURN;
  END IF;
  IF max_ranges < 8 THEN
    RAISE EXCEPTION 's2_covering: max_ranges is %, give 8 or more', max_ranges USING ERRCODE = '22023';
  END IF;
  span := greatest(public.ST_XMax(region) - public.ST_XMin(region), public.ST_YMax(region) - public.ST_YMin(region));
  -- A cell of level n is about 90 / 2^n degrees wide. Near the poles longitudes shrink: start coarse there.
  start_level := CASE
    WHEN span > 20 OR greatest(abs(public.ST_YMax(region)), abs(public.ST_YMin(region))) > 75 THEN 2
    ELSE least(30, greatest(2, floor(log(2, (90.0 / greatest(span, 1e-9))::numeric))::integer)) END;
  IF start_level = 2 THEN
    start := ARRAY(SELECT DISTINCT geofix.s2_parent(geofix.s2_cell_at(x, degrees(asin(z / 20.0)), 30), 2)
                   FROM generate_series(-180, 180, 5) AS x, generate_series(-20, 20) AS z);
  ELSE
    -- Sample the envelope more finely than any cell is wide, and take the neighbours too.
    start := ARRAY(
      SELECT DISTINCT n.id
      FROM generate_series(0, 4) AS i, generate_series(0, 4) AS j,
      LATERAL (SELECT geofix.s2_cell_at(
        public.ST_XMin(region) + i * (public.ST_XMax(region) - public.ST_XMin(region)) / 4,
        public.ST_YMin(region) + j * (public.ST_YMax(region) - public.ST_YMin(region)) / 4, start_level) AS id) AS s,
      LATERAL (SELECT s.id UNION ALL SELECT nb.id FROM geofix.s2_neighbors(s.id) AS nb(id)) AS n);
  END IF;
  RETURN QUERY
    WITH c AS (
      SELECT k.id, public.ST_Covers(region, k.geom) AS covered
      FROM (SELECT u.id, geofix.s2_polygon(u.id) AS geom FROM unnest(start) AS u(id)) AS k
      WHERE public.ST_Intersects(region, k.geom)
    )
    SELECT r.lo, r.hi, r.inside
    FROM geofix.s2_refine(ARRAY(SELECT c.id FROM c WHERE c.covered), ARRAY(SELECT c.id FROM c WHERE NOT c.covered),
                          region, max_ranges, 30) AS r;
END $$;

-- For the search: start from the blocks of one code set, whose outlines are stored, so that empty land costs nothing.
-- Blocks on the border are split while that spares more tests of centres than it costs: four outlines take as long as
-- a dozen centres, and half of the cells of a part can be spared. Neighbouring ranges of one kind become one where no cell of the set lies between them. A region that
-- crosses many blocks has as many ranges as it needs, whatever max_ranges says.
CREATE OR REPLACE FUNCTION geofix.code_set_covering(
  set_id bigint, region public.geometry, max_ranges integer DEFAULT 64
) RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  done bigint[];
  border bigint[];
  finest_level integer;
  span bigint;  -- of a block's ids
BEGIN
  SELECT coalesce(array_agg(c.s2_id) FILTER (WHERE c.covered), '{}'),
         coalesce(array_agg(c.s2_id) FILTER (WHERE NOT c.covered), '{}'),
         least(min(c.level), min(c.block_level)
               + greatest(0, ceil(ln(avg(c.cells) FILTER (WHERE NOT c.covered) / 24) / ln(4))))::integer,
         2 * (1::bigint << (60 - 2 * min(c.block_level)::integer))
    INTO done, border, finest_level, span
    FROM (SELECT b.s2_id, b.cells, s.level, s.block_level, public.ST_Covers(region, b.geom) AS covered
          FROM geofix.cell_block b JOIN geofix.code_set s USING (code_set_id)
          WHERE b.code_set_id = set_id AND public.ST_Intersects(region, b.geom)) AS c;
  RETURN QUERY
    WITH piece AS (
      SELECT r.lo, r.hi, r.inside, lag(r.hi) OVER w AS end_before, lag(r.inside) OVER w AS inside_before
      FROM geofix.s2_refine(done, border, region, max_ranges, finest_level) AS r WINDOW w AS (ORDER BY r.lo)
    ), marked AS (
      SELECT p.*, CASE WHEN p.inside = p.inside_before
          AND p.lo & (span - 1) = 1 AND p.end_before & (span - 1) = span - 1  -- between whole blocks
          AND NOT EXISTS (SELECT FROM geofix.cell_block b WHERE b.code_set_id = set_id
                          AND b.s2_id > p.end_before AND b.s2_id < p.lo)
        THEN 0 ELSE 1 END AS starts
      FROM piece p
    ), grouped AS (
      SELECT m.*, sum(m.starts) OVER (ORDER BY m.lo) AS island FROM marked m
    )
    SELECT min(g.lo), max(g.hi), bool_and(g.inside) FROM grouped g GROUP BY g.island ORDER BY 1;
END $$;

-- How many of the best everywhere hold the best k of a region, with room for what a graph misses when a filter takes most
-- of what it meets: of a million cells, 100 candidates kept 0.98 of the best ten in a region of 30 % and 0.8 in one of
-- 3 %, 1,000 candidates 0.997 and 0.97.
CREATE OR REPLACE FUNCTION geofix.candidates_wanted(k integer, cells bigint, in_scope bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN in_scope >= cells THEN greatest(100, 2.0 * k)
            ELSE greatest(100, 32.0 * k * cells / greatest(in_scope, 1)) END;

-- Up to how many cells in scope every one is read. Beyond 4,000 candidates a graph, which keeps 1,000 at most, loses too
-- many: reading ten times as many rows as usual is the smaller harm.
CREATE OR REPLACE FUNCTION geofix.read_up_to(exact_below integer, candidates double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN exact_below::bigint * CASE WHEN candidates > 4000 THEN 10 ELSE 1 END;
