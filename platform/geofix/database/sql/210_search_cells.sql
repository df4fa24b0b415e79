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

-- The condition on s2_id that keeps a search inside a region, as SQL text over parameter $2 (the region).
CREATE OR REPLACE FUNCTION geofix.scope_condition(set_id bigint, region public.geometry) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN region IS NULL THEN 'true' ELSE coalesce(
    (SELECT string_agg(
       CASE WHEN c.inside THEN format('(s2_id BETWEEN %s AND %s)', c.lo, c.hi)
            ELSE format('(s2_id BETWEEN %s AND %s AND public.ST_Covers($2, geofix.s2_center(s2_id)))', c.lo, c.hi) END,
       ' OR ' ORDER BY c.lo)
     FROM geofix.code_set_covering(set_id, region) AS c), 'false') END
$$;

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
SET hnsw.iterative_scan = strict_order
AS $$
DECLARE
  chosen geofix.code_set;
  asked public.halfvec;
  condition text;
  in_scope bigint;
  how text := 'exact';
  ids bigint[];
  distances double precision[];
BEGIN
  SELECT s.* INTO chosen FROM geofix.code_set s WHERE s.code_set_id = geofix.code_set_id(code_set);
  asked := geofix.completed_query(query, chosen.dimension, 'search_cells');
  PERFORM geofix.check_search_arguments(k, region, 'search_cells');
  condition := geofix.scope_condition(chosen.code_set_id, region);
  IF region IS NULL THEN
    in_scope := chosen.cells;
  ELSE
    EXECUTE format('SELECT count(*) FROM geofix.cell_code WHERE code_set_id = %s AND $1 IS NOT NULL AND (%s)',
                   chosen.code_set_id, condition) INTO in_scope USING asked, region;
  END IF;

  IF in_scope > exact_below AND chosen.index_parameters ? 'm' THEN
    how := 'hnsw';
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(100, 2 * k))::text, true);
    -- The cast makes the expression that of the index; without it the planner scans every row.
    EXECUTE format(
      'SELECT array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id) FROM (
         SELECT s2_id, (code::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 AS d FROM geofix.cell_code
         WHERE code_set_id = %2$s AND (%3$s)
         ORDER BY (code::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 LIMIT $3) AS near',
      chosen.dimension, chosen.code_set_id, condition) INTO ids, distances USING asked, region, k;
  END IF;
  IF how = 'exact' OR coalesce(cardinality(ids), 0) < least(k, in_scope) THEN
    -- Few cells, no index, or a scan that gave up early. Without the cast no index can answer: every row is read.
    how := 'exact';
    EXECUTE format(
      'SELECT array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id) FROM (
         SELECT s2_id, code OPERATOR(public.<#>) $1 AS d FROM geofix.cell_code
         WHERE code_set_id = %s AND (%s) ORDER BY 2, 1 LIMIT $3) AS best',
      chosen.code_set_id, condition) INTO ids, distances USING asked, region, k;
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
