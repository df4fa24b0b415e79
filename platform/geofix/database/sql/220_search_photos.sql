-- The nearest photos of a model, everywhere or inside any geometry.
CREATE OR REPLACE FUNCTION geofix.search_photos(
  query public.halfvec, k integer, model text, region public.geometry DEFAULT NULL, exact_below integer DEFAULT 10000
) RETURNS TABLE (
  rank integer, photo_id bigint, score double precision, geom public.geometry, method text, photos_in_scope bigint)
LANGUAGE plpgsql STABLE
SET hnsw.ef_search = 100
SET hnsw.iterative_scan = strict_order
AS $$
DECLARE
  chosen geofix.model;
  leaf regclass;
  condition text := 'true';
  in_scope bigint;
  how text := 'exact';
  ids bigint[];
  distances double precision[];
BEGIN
  SELECT m.* INTO chosen FROM geofix.model m WHERE m.name = search_photos.model;
  leaf := to_regclass(format('geofix_leaf.photo_embedding_%s', chosen.model_id));
  IF chosen.model_id IS NULL OR leaf IS NULL THEN
    RAISE EXCEPTION 'model % has no photo embeddings; run: geofix embed photos --model NAME', quote_nullable(model)
      USING ERRCODE = '22023';
  END IF;
  IF query IS NULL OR public.vector_dims(query) <> chosen.dimension THEN
    RAISE EXCEPTION 'search_photos: the query has % dimensions, model % wants %', public.vector_dims(query), model,
      chosen.dimension USING ERRCODE = '22023';
  END IF;
  PERFORM geofix.check_search_arguments(k, region, 'search_photos');
  IF region IS NOT NULL THEN
    condition := 'EXISTS (SELECT 1 FROM geofix.photo_record p
                          WHERE p.photo_id = e.photo_id AND public.ST_Covers($2, p.geom))';
  END IF;
  EXECUTE format('SELECT count(*) FROM geofix.photo_embedding e WHERE e.model_id = %s AND $1 IS NOT NULL AND %s',
                 chosen.model_id, condition) INTO in_scope USING query, region;
  IF in_scope > exact_below AND EXISTS (
      SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
      WHERE i.indrelid = leaf AND a.amname = 'hnsw' AND i.indisvalid) THEN
    how := 'hnsw';
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(100, 2 * k))::text, true);
    EXECUTE format(
      'SELECT array_agg(photo_id ORDER BY d, photo_id), array_agg(d ORDER BY d, photo_id) FROM (
         SELECT e.photo_id, (e.embedding::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 AS d
         FROM geofix.photo_embedding e WHERE e.model_id = %2$s AND %3$s
         ORDER BY (e.embedding::public.halfvec(%1$s)) OPERATOR(public.<#>) $1 LIMIT $3) AS near',
      chosen.dimension, chosen.model_id, condition) INTO ids, distances USING query, region, k;
  END IF;
  IF how = 'exact' OR coalesce(cardinality(ids), 0) < least(k, in_scope) THEN
    how := 'exact';
    EXECUTE format(
      'SELECT array_agg(photo_id ORDER BY d, photo_id), array_agg(d ORDER BY d, photo_id) FROM (
         SELECT e.photo_id, e.embedding OPERATOR(public.<#>) $1 AS d
         FROM geofix.photo_embedding e WHERE e.model_id = %s AND %s ORDER BY 2, 1 LIMIT $3) AS best',
      chosen.model_id, condition) INTO ids, distances USING query, region, k;
  END IF;
  RETURN QUERY
    SELECT u.n::integer, u.id, -u.d, p.geom, how, in_scope
    FROM unnest(ids, distances) WITH ORDINALITY AS u(id, d, n)
    JOIN geofix.photo_record p ON p.photo_id = u.id ORDER BY u.n;
END $$;
