-- From any geometry to few ranges of S2 leaf ids.
-- A cell belongs to a region when its centre lies in it. `inside` says that every cell of the range does;
-- ranges on the border are to be re-checked by centre. Outlines of cells follow the geodesic to within 2.5 m times the
-- tangent of the latitude (s2_polygon), far less than the 64 m from the border of a level-16 cell to its centre.

-- Earlier forms of what is below.
DROP FUNCTION IF EXISTS geofix.scope_condition(bigint, public.geometry);
DROP FUNCTION IF EXISTS geofix.s2_refine(bigint[], public.geometry, integer, integer);
DROP FUNCTION IF EXISTS geofix.s2_refine(bigint[], bigint[], public.geometry, integer, integer);

-- Leaf ids lo to hi, both inclusive, as a range. No bigint follows the last leaf of face 3: there the end is exclusive,
-- which takes away that one leaf, a centimetre wide.
CREATE OR REPLACE FUNCTION geofix.s2_ids(lo bigint, hi bigint) RETURNS int8range
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN int8range(lo, CASE WHEN hi < 9223372036854775807 THEN hi + 1 ELSE hi END);

-- Splits cells that cross the border into their children, until more ranges than asked for would result or the finest
-- level is reached. `done` are cells wholly inside. Both lists come back.
CREATE OR REPLACE FUNCTION geofix.s2_split(
  INOUT done bigint[], INOUT border bigint[], region public.geometry, max_ranges integer, finest_level integer)
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
END $$;

-- Neighbouring cells of one kind become one range. Too many ranges are the caller's matter.
CREATE OR REPLACE FUNCTION geofix.s2_merge(inside_cells bigint[], border_cells bigint[])
RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  WITH cell AS (
    -- First and last leaf: no bigint follows the last leaf of face 3, so the one is taken off first.
    SELECT u.id - ((u.id & -u.id) - 1) AS lo, u.id + ((u.id & -u.id) - 1) AS hi, true AS inside
    FROM unnest(inside_cells) AS u(id)
    UNION ALL
    SELECT u.id - ((u.id & -u.id) - 1), u.id + ((u.id & -u.id) - 1), false FROM unnest(border_cells) AS u(id)
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
  done bigint[];
  border bigint[];
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
  SELECT coalesce(array_agg(c.id) FILTER (WHERE c.covered), '{}'),
         coalesce(array_agg(c.id) FILTER (WHERE NOT c.covered), '{}')
    INTO done, border
    FROM (SELECT k.id, public.ST_Covers(region, k.geom) AS covered
          FROM (SELECT u.id, geofix.s2_polygon(u.id) AS geom FROM unnest(start) AS u(id)) AS k
          WHERE public.ST_Intersects(region, k.geom)) AS c;
  SELECT f.done, f.border INTO done, border FROM geofix.s2_split(done, border, region, max_ranges, 30) AS f;
  RETURN QUERY SELECT m.lo, m.hi, m.inside FROM geofix.s2_merge(done, border) AS m ORDER BY m.lo;
END $$;

-- For the search: start from the blocks of one code set, whose outlines are stored, so that empty land costs nothing.
-- Blocks on the border are split while that spares more tests of centres than it costs: four outlines take as long as
-- a dozen centres, and half of the cells of a part can be spared. Neighbouring ranges of one kind become one where no
-- cell of the set lies between them. A region that crosses many blocks has as many ranges as it needs, whatever
-- max_ranges says. `cells` is how many cells a range has in the region, estimated from the blocks' counts as if cells
-- were spread evenly in each and half of those on the border were inside.
-- What takes the time is the number of blocks: outlines are compared once with the region where it covers them, and
-- ids are only added to and masked, as a call of a function a block costs more than all the rest.
CREATE OR REPLACE FUNCTION geofix.code_set_pieces(set_id bigint, region public.geometry, max_ranges integer)
RETURNS TABLE (lo bigint, hi bigint, inside boolean, cells double precision)
LANGUAGE plpgsql STABLE PARALLEL SAFE
-- The values say little that the planner could use, and planning for each took as long as a small region.
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  parts integer := public.ST_NumGeometries(region);
  ids bigint[];
  whole boolean[];  -- every cell of it is inside
  counts double precision[];
  on_border double precision;  -- cells a block there
  borders integer;
  done bigint[];
  border bigint[];
  set_level integer;
  first_level integer;  -- of the blocks
  finest_level integer;
  span bigint;  -- of a block's ids
BEGIN
  SELECT s.level, s.block_level INTO set_level, first_level FROM geofix.code_set s WHERE s.code_set_id = set_id;
  SELECT array_agg(c.s2_id), array_agg(c.covered), array_agg(c.cells),
         avg(c.cells) FILTER (WHERE NOT c.covered), count(*) FILTER (WHERE NOT c.covered)
    INTO ids, whole, counts, on_border, borders
    FROM (SELECT n.s2_id, n.cells, n.geom, public.ST_Covers(region, n.geom) AS covered
          FROM (SELECT b.s2_id, b.cells, b.geom FROM geofix.cell_block b
                WHERE parts <= 1 AND b.geom OPERATOR(public.&&) region
                  AND b.code_set_id + 0 = set_id  -- not by the key, which holds all blocks of the set
                UNION ALL
                -- Part by part: the box around a country with islands on both sides of an ocean holds half the world.
                SELECT DISTINCT ON (b.s2_id) b.s2_id, b.cells, b.geom
                FROM public.ST_Dump(region) AS part JOIN geofix.cell_block b ON b.geom OPERATOR(public.&&) part.geom
                WHERE parts > 1 AND b.code_set_id + 0 = set_id) AS n
          OFFSET 0) AS c
    WHERE c.covered OR public.ST_Intersects(region, c.geom);
  finest_level := least(set_level, first_level + greatest(0, ceil(ln(on_border / 24) / ln(4))));
  span := 2 * (1::bigint << (60 - 2 * first_level));
  IF borders BETWEEN 1 AND max_ranges AND finest_level > first_level THEN
    SELECT f.done, f.border INTO done, border
      FROM geofix.s2_split(ARRAY(SELECT u.id FROM unnest(ids, whole) AS u(id, covered) WHERE u.covered),
                           ARRAY(SELECT u.id FROM unnest(ids, whole) AS u(id, covered) WHERE NOT u.covered),
                           region, max_ranges, finest_level) AS f;
    SELECT array_agg(p.id), array_agg(p.covered), array_agg(b.cells * (p.id & -p.id) / (b.id & -b.id)::double precision)
      INTO ids, whole, counts
      FROM (SELECT u.id, true AS covered FROM unnest(done) AS u(id)
            UNION ALL SELECT u.id, false FROM unnest(border) AS u(id)) AS p
      JOIN unnest(ids, counts) AS b(id, cells) ON b.id = geofix.s2_parent(p.id, first_level);
  END IF;
  RETURN QUERY
    WITH cell AS (
      SELECT u.id - ((u.id & -u.id) - 1) AS lo, u.id + ((u.id & -u.id) - 1) AS hi, u.covered,
             CASE WHEN u.covered THEN u.n ELSE u.n / 2 END AS n
      FROM unnest(ids, whole, counts) AS u(id, covered, n)
    ), before AS (
      SELECT c.*, lag(c.hi) OVER w AS hi_before, lag(c.covered) OVER w AS covered_before FROM cell c WINDOW w AS (ORDER BY c.lo)
    ), marked AS (
      SELECT m.*, CASE WHEN m.covered = m.covered_before AND (
          m.hi_before + 2 = m.lo  -- leaf ids differ by two
          OR m.lo & (span - 1) = 1 AND m.hi_before & (span - 1) = span - 1  -- between whole blocks
          AND NOT EXISTS (SELECT FROM geofix.cell_block b WHERE b.code_set_id = set_id
                          AND b.s2_id > m.hi_before AND b.s2_id < m.lo))
        THEN 0 ELSE 1 END AS starts
      FROM before m
    ), grouped AS (
      SELECT m.*, sum(m.starts) OVER (ORDER BY m.lo) AS island FROM marked m
    )
    SELECT min(g.lo), max(g.hi), bool_and(g.covered), sum(g.n) FROM grouped g GROUP BY g.island ORDER BY 1;
END $$;

CREATE OR REPLACE FUNCTION geofix.code_set_covering(
  set_id bigint, region public.geometry, max_ranges integer DEFAULT 64
) RETURNS TABLE (lo bigint, hi bigint, inside boolean)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT p.lo, p.hi, p.inside FROM geofix.code_set_pieces(set_id, region, max_ranges) AS p
$$;

-- How many rows of a region a graph is asked for, of which the best k are taken. It goes on until it has them, since it
-- keeps 1,000 candidates at most and misses some of the last of those: in regions of 5 to 30 % of a million cells the
-- 1,000 best everywhere held all of the best ten there, what the graph took for them 0.988 in one.
CREATE OR REPLACE FUNCTION geofix.rows_wanted(k integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(32 * k::bigint, 320 + 4 * k::bigint, 2147483647)::integer;

-- How many candidates hold so many rows of a region.
CREATE OR REPLACE FUNCTION geofix.candidates_wanted(k integer, cells bigint, in_scope bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN in_scope >= cells THEN greatest(100, 2.0 * k)
            ELSE greatest(100, geofix.rows_wanted(k)::double precision * cells / greatest(in_scope, 1)) END;

-- Up to how many cells in scope every one is read, which finds all: 25 take as long as one candidate of a graph of a
-- million cells, some 10 where all of it is in the server's own memory.
CREATE OR REPLACE FUNCTION geofix.read_up_to(exact_below integer, candidates double precision) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(exact_below * greatest(1, candidates / 400), 1e15)::bigint;
