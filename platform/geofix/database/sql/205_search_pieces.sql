-- The search of a code set whose cells are spread over several servers: the same answers as search_cells gives of one
-- leaf. Over partitions a Merge Append sends no LIMIT and is never asynchronous, so every piece is asked by itself:
-- (... ORDER BY ... LIMIT k) UNION ALL (...), and what comes back is sorted once more.

-- Ranges of ids in ascending order as a condition on s2_id. Few are alternatives, which an index answers one by one;
-- many would take the planner longer than the search, so they are one value within the whole span.
CREATE OR REPLACE FUNCTION geofix.ranges_condition(los bigint[], his bigint[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
  SELECT CASE WHEN cardinality(los) <= 64
    THEN string_agg(format('(s2_id BETWEEN %s AND %s)', u.lo, u.hi), ' OR ' ORDER BY u.lo)
    ELSE format('(s2_id BETWEEN %s AND %s AND s2_id <@ %L::int8multirange)', min(u.lo), max(u.hi),
                range_agg(geofix.s2_ids(u.lo, u.hi))) END
  FROM unnest(los, his) AS u(lo, hi)
$$;

-- The pieces of a code set that a search has to ask, each with its conditions as SQL text. postgres_fdw sends only what
-- the other server is known to have, which s2_center is not: `border` names the cells that are to be tested here.
DROP FUNCTION IF EXISTS geofix.pieces_in_scope(bigint, public.geometry, text[]);
CREATE OR REPLACE FUNCTION geofix.pieces_in_scope(set_id bigint, region public.geometry, without text[])
RETURNS TABLE (leaf text, shard text, lo bigint, hi bigint, cells bigint, inside text, border text)
LANGUAGE sql STABLE AS $$
  WITH piece AS (
    SELECT format('cell_code_%s_%s_%s', p.code_set_id, p.generation, p.piece) AS leaf,
           coalesce(s.name, 'local') AS shard, p.lo, p.hi, p.cells
    FROM geofix.shard_piece p LEFT JOIN geofix.shard s USING (shard_id)
    WHERE p.code_set_id = set_id AND p.state = 'live' AND coalesce(s.name, 'local') <> ALL (without)
  )
  SELECT p.leaf, p.shard, p.lo, p.hi, p.cells, 'true', NULL::text FROM piece p WHERE region IS NULL
  UNION ALL
  SELECT p.leaf, p.shard, p.lo, p.hi, p.cells,
         geofix.ranges_condition(array_agg(c.lo ORDER BY c.lo) FILTER (WHERE c.inside),
                                 array_agg(c.hi ORDER BY c.lo) FILTER (WHERE c.inside)),
         geofix.ranges_condition(array_agg(c.lo ORDER BY c.lo) FILTER (WHERE NOT c.inside),
                                 array_agg(c.hi ORDER BY c.lo) FILTER (WHERE NOT c.inside))
  FROM piece p
  JOIN geofix.code_set_covering(set_id, region) AS c ON c.lo <= p.hi AND c.hi >= p.lo
  WHERE region IS NOT NULL GROUP BY p.leaf, p.shard, p.lo, p.hi, p.cells
$$;

-- The statement that asks the pieces, over parameters $1 (the query) and $2 (the first id of each piece, ascending). The
-- expression with the dimension is that of the index; without it, where `exact` says so, no index can answer and every
-- row is read. A shard keeps 100 candidates unless told otherwise; `most` says how many rows its index is asked for, which
-- makes it look at more. Beside the answer stands how many rows each piece gave.
DROP FUNCTION IF EXISTS geofix.pieces_statement(text[], text[], boolean[], integer, integer);
CREATE OR REPLACE FUNCTION geofix.pieces_statement(
  leaves text[], conditions text[], exact boolean[], most integer[], k integer, dimension integer
) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT format(
    'WITH near AS MATERIALIZED (%s)
     SELECT array_agg(s2_id ORDER BY d, s2_id), array_agg(d ORDER BY d, s2_id),
       ARRAY(SELECT count(n.s2_id) FROM generate_subscripts($2, 1) AS u(i)
             LEFT JOIN near n ON width_bucket(n.s2_id, $2) = u.i GROUP BY u.i ORDER BY u.i)
     FROM (SELECT s2_id, d FROM near ORDER BY d, s2_id LIMIT %s) AS best',
    string_agg(
      CASE WHEN u.exact THEN format(
        '(SELECT s2_id, code OPERATOR(public.<#>) $1 AS d FROM geofix_leaf.%I WHERE %s ORDER BY 2, 1 LIMIT %s)',
        u.leaf, u.condition, k)
      ELSE format(
        '(SELECT s2_id, (code::public.halfvec(%s)) OPERATOR(public.<#>) $1 AS d FROM geofix_leaf.%I WHERE %s
          ORDER BY (code::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 LIMIT %4$s)',
        dimension, u.leaf, u.condition, u.most) END, ' UNION ALL '), k)
  FROM unnest(leaves, conditions, exact, most) AS u(leaf, condition, exact, most)
$$;

-- One search of all pieces but those of the shards left out. `how` is null where the set has moved on after this
-- statement's view of the registry was taken.
CREATE OR REPLACE FUNCTION geofix.ask_pieces(
  chosen geofix.code_set, asked public.halfvec, k integer, region public.geometry, exact_below integer, without text[],
  OUT ids bigint[], OUT distances double precision[], OUT how text, OUT in_scope bigint
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  scope record;
  border_ids bigint[] := '{}';
  leaves text[] := '{}';
  conditions text[] := '{}';
  los bigint[] := '{}';
  wholes bigint[] := '{}';  -- cells of each piece
  cells bigint[] := '{}';  -- those in scope
  most integer[];
  tested bigint[];
  exact boolean[];
  found bigint[];
  short boolean[];
BEGIN
  -- Pieces are locked after the table they belong to, as by everybody else: from here on no move takes them away.
  PERFORM FROM ONLY geofix.cell_code;
  SELECT array_agg(p.leaf ORDER BY p.lo) AS leaves, array_agg(p.lo ORDER BY p.lo) AS los, array_agg(p.hi ORDER BY p.lo) AS his,
         array_agg(p.cells ORDER BY p.lo) AS cells, array_agg(p.inside ORDER BY p.lo) AS inside, array_agg(p.border ORDER BY p.lo) AS border
    INTO scope FROM geofix.pieces_in_scope(chosen.code_set_id, region, without) AS p;
  in_scope := 0;
  how := 'exact';
  IF scope.leaves IS NULL THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM unnest(scope.leaves) AS u(leaf) WHERE to_regclass('geofix_leaf.' || u.leaf) IS NULL) THEN
    how := NULL;
    RETURN;
  END IF;
  IF region IS NOT NULL AND array_remove(scope.border, NULL) <> '{}' THEN
    EXECUTE (
      SELECT format('SELECT array_agg(s2_id) FROM (%s) AS border WHERE public.ST_Covers($1, geofix.s2_center(s2_id))',
                    string_agg(format('SELECT s2_id FROM geofix_leaf.%I WHERE %s', u.leaf, u.border), ' UNION ALL '))
      FROM unnest(scope.leaves, scope.border) AS u(leaf, border) WHERE u.border IS NOT NULL)
      INTO border_ids USING region;
  END IF;
  FOR i IN 1 .. cardinality(scope.leaves) LOOP
    tested := ARRAY(SELECT b.id FROM unnest(border_ids) AS b(id) WHERE b.id BETWEEN scope.los[i] AND scope.his[i]);
    CONTINUE WHEN scope.inside[i] IS NULL AND cardinality(tested) = 0;
    leaves := leaves || scope.leaves[i];
    los := los || scope.los[i];
    wholes := wholes || scope.cells[i];
    conditions := conditions || concat_ws(' OR ', scope.inside[i],
      CASE WHEN cardinality(tested) > 0 THEN format('s2_id = ANY (%L::bigint[])', tested) END);
  END LOOP;
  IF cardinality(leaves) = 0 THEN
    RETURN;
  END IF;
  cells := wholes;
  IF region IS NOT NULL THEN  -- columns in the order they are wanted, else the shards are asked one after another
    EXECUTE (
      SELECT format('SELECT array_agg(n ORDER BY i) FROM (%s) AS counted', string_agg(
        format('SELECT count(*) AS n, %s AS i FROM geofix_leaf.%I WHERE %s', u.i, u.leaf, u.condition), ' UNION ALL '))
      FROM unnest(leaves, conditions) WITH ORDINALITY AS u(leaf, condition, i)) INTO cells;
  END IF;
  in_scope := (SELECT sum(u.n) FROM unnest(cells) AS u(n));
  -- Each piece is asked as search_cells asks a set of its own, by the share of its cells that is in scope: one with few
  -- exactly; so is one whose scan gave up before it had found k, however many the others gave.
  SELECT array_agg(NOT coalesce(u.n > geofix.read_up_to(exact_below, geofix.candidates_wanted(k, u.whole, u.n))
                                AND chosen.index_parameters ? 'm', false) ORDER BY u.i),
         array_agg(CASE WHEN u.n < u.whole THEN geofix.rows_wanted(k) WHEN k > 50 THEN 2 * k ELSE k END::integer ORDER BY u.i)
    INTO exact, most FROM unnest(cells, wholes) WITH ORDINALITY AS u(n, whole, i);
  PERFORM set_config('hnsw.ef_search', least(1000, greatest(100, 2 * k))::text, true);
  LOOP
    EXECUTE geofix.pieces_statement(leaves, conditions, exact, most, k, chosen.dimension)
      INTO ids, distances, found USING asked, los;
    short := ARRAY(SELECT u.exact OR u.found < least(k, u.n)
                   FROM unnest(exact, found, cells) WITH ORDINALITY AS u(exact, found, n, i) ORDER BY u.i);
    EXIT WHEN short = exact;
    exact := short;
  END LOOP;
  how := CASE WHEN false = ANY (exact) THEN 'hnsw' ELSE 'exact' END;
END $$;

-- Names of the shards of a code set that do not answer.
CREATE OR REPLACE FUNCTION geofix.silent_shards(set_id bigint) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
  piece record;
  silent text[] := '{}';
BEGIN
  FOR piece IN SELECT DISTINCT ON (p.shard) p.leaf, p.shard FROM geofix.pieces_in_scope(set_id, NULL, '{}') AS p LOOP
    BEGIN
      EXECUTE format('SELECT FROM geofix_leaf.%I LIMIT 1', piece.leaf);
    EXCEPTION WHEN connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now OR fdw_error
      OR insufficient_resources THEN
      silent := silent || piece.shard;
    END;
  END LOOP;
  RETURN silent;
END $$;

-- A shard that is down is an error, which postgres_fdw words with the name of the server. With
-- SET geofix.partial_answers = on the others answer, and the method says who did not; where they have nothing, it stays an
-- error. Catching the error costs two round trips to every shard (a savepoint), so it is caught in that case alone.
CREATE OR REPLACE FUNCTION geofix.search_pieces(
  chosen geofix.code_set, asked public.halfvec, k integer, region public.geometry, exact_below integer,
  OUT ids bigint[], OUT distances double precision[], OUT how text, OUT in_scope bigint
)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  silent text[];
BEGIN
  IF NOT coalesce(nullif(current_setting('geofix.partial_answers', true), '')::boolean, false) THEN
    SELECT f.* INTO ids, distances, how, in_scope
    FROM geofix.ask_pieces(chosen, asked, k, region, exact_below, '{}') AS f;
    RETURN;
  END IF;
  BEGIN
    SELECT f.* INTO ids, distances, how, in_scope
    FROM geofix.ask_pieces(chosen, asked, k, region, exact_below, '{}') AS f;
    RETURN;
  EXCEPTION WHEN connection_exception OR admin_shutdown OR crash_shutdown OR cannot_connect_now OR fdw_error
      OR insufficient_resources THEN
    silent := geofix.silent_shards(chosen.code_set_id);
    IF cardinality(silent) = 0 THEN
      RAISE;
    END IF;
  END;
  SELECT f.* INTO ids, distances, how, in_scope
  FROM geofix.ask_pieces(chosen, asked, k, region, exact_below, silent) AS f;
  IF how IS NOT NULL AND coalesce(cardinality(ids), 0) = 0 THEN  -- no answer is not a partial one
    RAISE EXCEPTION 'could not connect to %, and no other shard holds cells that were asked for',
      (SELECT string_agg(format('server "geofix_shard_%s"', u.name), ', ') FROM unnest(silent) AS u(name))
      USING ERRCODE = 'sqlclient_unable_to_establish_sqlconnection';
  END IF;
  how := how || ' without ' || array_to_string(silent, ', ');
END $$;
