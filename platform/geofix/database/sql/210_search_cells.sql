-- One function decides how to search a code set: exactly, or by HNSW with an iterative scan.
-- The SET clauses keep the settings out of the analyst's transaction.

CREATE OR REPLACE FUNCTION geofix.code_set_id(code_set text) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  found_id bigint;
BEGIN
  SELECT s.code_set_id INTO found_id FROM geofix.code_set s
  WHERE s.name = code_set AND s.state IN ('ready', 'stale');
  IF found_id IS NULL THEN
    RAISE EXCEPTION 'no ready code set is named %; SELECT name, state FROM geofix.code_set', quote_nullable(code_set)
      USING ERRCODE = '22023';
  END IF;
  RETURN found_id;
END $$;

-- The ids of a region's cells in a code set: those wholly inside, those on the border, which are to be tested by their
-- centre, and how many cells there are, estimated. PL/pgSQL keeps the plan from call to call, SQL would not.
CREATE OR REPLACE FUNCTION geofix.code_set_scope(
  chosen geofix.code_set, region public.geometry, OUT sure int8multirange, OUT border int8multirange, OUT cells bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  SELECT coalesce(range_agg(geofix.s2_ids(p.lo, p.hi)) FILTER (WHERE p.inside), '{}'),
         coalesce(range_agg(geofix.s2_ids(p.lo, p.hi)) FILTER (WHERE NOT p.inside), '{}'),
         coalesce(round(sum(p.cells)), 0)
    INTO sure, border, cells
    FROM geofix.code_set_pieces(chosen.code_set_id, region, 64) AS p;
END $$;

-- A query of D dimensions is completed by 1 (the bias takes part) and 0 (the norm completion does not).
CREATE OR REPLACE FUNCTION geofix.completed_query(asked public.halfvec, dimension integer, caller text)
RETURNS public.halfvec
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF asked IS NULL THEN
    RAISE EXCEPTION '%: the query vector is null', caller USING ERRCODE = '22004';
  ELSIF public.vector_dims(asked) = dimension THEN
    RETURN asked;
  ELSIF public.vector_dims(asked) = dimension - 2 THEN
    RETURN asked OPERATOR(public.||) '[1,0]'::public.halfvec;
  END IF;
  RAISE EXCEPTION '%: the query has % dimensions, the code set wants % (or % when completed)', caller,
    public.vector_dims(asked), dimension - 2, dimension USING ERRCODE = '22023';
END $$;

CREATE OR REPLACE FUNCTION geofix.check_search_arguments(k integer, region public.geometry, caller text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF k IS NULL OR k < 1 THEN
    RAISE EXCEPTION '%: k is %, give 1 or more', caller, coalesce(k::text, 'null') USING ERRCODE = '22023';
  END IF;
  IF region IS NOT NULL AND public.ST_SRID(region) <> 4326 THEN
    RAISE EXCEPTION '%: the region has SRID %, give EPSG:4326 (ST_Transform(region, 4326))', caller,
      public.ST_SRID(region) USING ERRCODE = '22023';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION geofix.search_cells(
  query public.halfvec, k integer, code_set text, region public.geometry DEFAULT NULL, exact_below integer DEFAULT 10000
) RETURNS TABLE (
  rank integer, s2_id bigint, score double precision, geom public.geometry, method text, cells_in_scope bigint)
LANGUAGE plpgsql STABLE
SET hnsw.ef_search = 100
SET hnsw.iterative_scan = relaxed_order
AS $$
DECLARE
  chosen geofix.code_set;
  asked public.halfvec;
  sure int8multirange;
  border int8multirange;
  in_scope bigint;
  candidates double precision;
  worn boolean;
  how text := 'exact';
  ids bigint[];
  distances double precision[];
BEGIN
  SELECT s.* INTO chosen FROM geofix.code_set s WHERE s.code_set_id = geofix.code_set_id(code_set);
  asked := geofix.completed_query(query, chosen.dimension, 'search_cells');
  PERFORM geofix.check_search_arguments(k, region, 'search_cells');
  IF EXISTS (SELECT FROM geofix.shard_piece p WHERE p.code_set_id = chosen.code_set_id AND p.state = 'live') THEN
    SELECT f.* INTO ids, distances, how, in_scope
    FROM geofix.search_pieces(chosen, asked, k, region, exact_below) AS f;
    IF how IS NOT NULL THEN
      RETURN QUERY
        SELECT u.n::integer, u.id, -u.d * chosen.scale, geofix.s2_center(u.id), how, in_scope
        FROM unnest(ids, distances) WITH ORDINALITY AS u(id, d, n) ORDER BY u.n;
      RETURN;
    END IF;
    how := 'exact';
  END IF;
  in_scope := chosen.cells;
  IF region IS NOT NULL THEN
    SELECT f.* INTO sure, border, in_scope FROM geofix.code_set_scope(chosen, region) AS f;
  END IF;

  candidates := geofix.candidates_wanted(k, chosen.cells, in_scope);
  IF in_scope > geofix.read_up_to(exact_below, candidates) AND chosen.index_parameters ? 'm' THEN
    how := 'hnsw';
    -- Without a filter a scan need not go on after the first candidates, which spares a quarter of its time; unless some
    -- of them may be of rows that a refresh has replaced. Then it goes on until it has twice as many as wanted.
    worn := coalesce((chosen.index_parameters ->> 'dead_entries')::bigint, 0) > 0;
    PERFORM set_config('hnsw.ef_search', least(1000, ceil(candidates))::text, true),
            set_config('hnsw.iterative_scan', CASE WHEN region IS NULL AND k <= 500 AND NOT worn THEN 'off' ELSE 'relaxed_order' END,
                       true);
    -- The cast makes the expression that of the index; without it the planner scans every row. MATERIALIZED: a scan
    -- that goes on finds better rows than it gave, which the planner does not know, so all are taken and sorted again.
    EXECUTE format(
      'WITH near AS MATERIALIZED (
         SELECT s2_id, (code::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 AS d FROM geofix.cell_code
         WHERE code_set_id = %2$s AND (%3$s)
         ORDER BY (code::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 LIMIT $6)
       SELECT array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id)
       FROM (SELECT s2_id, d FROM near ORDER BY d, s2_id LIMIT $2) AS best',
      chosen.dimension, chosen.code_set_id, CASE WHEN region IS NULL THEN 'true' ELSE
        's2_id <@ $3 OR s2_id <@ $4 AND public.ST_Covers($5, geofix.s2_center(s2_id))' END)
      INTO ids, distances USING asked, k, sure, border, region,
        CASE WHEN candidates > 1250 THEN geofix.rows_wanted(k)  -- a quarter more than it keeps
             WHEN worn THEN least(2 * k::bigint + 20, in_scope)::integer ELSE k END;
  END IF;
  IF how = 'exact' OR coalesce(cardinality(ids), 0) < least(k, in_scope) THEN
    -- Few cells, no index, or a scan that gave up early. Without the cast no index can answer: every row is read.
    how := 'exact';
    IF region IS NULL THEN
      EXECUTE format(
        'SELECT array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id) FROM (
           SELECT s2_id, code OPERATOR(public.<#>) $1 AS d FROM geofix.cell_code
           WHERE code_set_id = %s ORDER BY 2, 1 LIMIT $2) AS best', chosen.code_set_id)
        INTO ids, distances USING asked, k;
    ELSE
      EXECUTE format(
        -- OFFSET 0 keeps each range one look into the index, whatever the planner thinks of their number.
        'WITH scope AS MATERIALIZED (
           SELECT c.s2_id, c.code OPERATOR(public.<#>) $1 AS d FROM unnest($3) AS r, LATERAL (
             SELECT s2_id, code FROM geofix.cell_code
             WHERE code_set_id = %1$s AND s2_id >= lower(r) AND s2_id < upper(r) OFFSET 0) AS c
           UNION ALL
           SELECT c.s2_id, c.code OPERATOR(public.<#>) $1 FROM unnest($4) AS r, LATERAL (
             SELECT s2_id, code FROM geofix.cell_code
             WHERE code_set_id = %1$s AND s2_id >= lower(r) AND s2_id < upper(r) OFFSET 0) AS c
           WHERE public.ST_Covers($5, geofix.s2_center(c.s2_id))),
         best AS (SELECT s2_id, d FROM scope ORDER BY d, s2_id LIMIT $2)
         SELECT (SELECT count(*) FROM scope), array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id) FROM best',
        chosen.code_set_id) INTO in_scope, ids, distances USING asked, k, sure, border, region;
    END IF;
  END IF;
  RETURN QUERY
    SELECT u.n::integer, u.id, -u.d * chosen.scale, geofix.s2_center(u.id), how, in_scope
    FROM unnest(ids, distances) WITH ORDINALITY AS u(id, d, n) ORDER BY u.n;
END $$;

-- Where else looks like this: the code of one cell, without its bias, asked of all the others.
CREATE OR REPLACE FUNCTION geofix.similar_cells(
  s2_id bigint, k integer, code_set text, region public.geometry DEFAULT NULL
) RETURNS TABLE (
  rank integer, s2_id_found bigint, score double precision, geom public.geometry, method text, cells_in_scope bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  chosen geofix.code_set;
  asked public.halfvec;
BEGIN
  SELECT s.* INTO chosen FROM geofix.code_set s WHERE s.code_set_id = geofix.code_set_id(code_set);
  EXECUTE format(
    'SELECT public.l2_normalize(public.subvector(code::public.halfvec(%s), 1, %s)) FROM geofix.cell_code
     WHERE code_set_id = %s AND s2_id = $1', chosen.dimension, chosen.dimension - 2, chosen.code_set_id)
    INTO asked USING similar_cells.s2_id;
  IF asked IS NULL THEN
    RAISE EXCEPTION 'similar_cells: code set % has no cell % (%)', code_set, similar_cells.s2_id,
      geofix.s2_token(similar_cells.s2_id) USING ERRCODE = '22023';
  END IF;
  asked := asked OPERATOR(public.||) '[0,0]'::public.halfvec;
  RETURN QUERY
    SELECT (row_number() OVER (ORDER BY f.rank))::integer, f.s2_id, f.score, f.geom, f.method, f.cells_in_scope
    FROM geofix.search_cells(asked, k + 1, code_set, region) AS f
    WHERE f.s2_id <> similar_cells.s2_id ORDER BY f.rank LIMIT k;
END $$;
