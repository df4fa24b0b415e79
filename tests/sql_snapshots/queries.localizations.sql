-- SEARCH
SELECT rank, s2_id, geofix.s2_token(s2_id), public.ST_X(geom), public.ST_Y(geom), score, method, cells_in_scope
FROM geofix.search_cells(%(query)s, %(k)s, %(code_set)s, public.ST_GeomFromEWKB(%(region)s))
ORDER BY rank

-- INSERT
INSERT INTO geofix.query (photo_sha256, photo_name, code_set_id, localizer, k, region_geom, search_method, cells_in_scope,
                          in_coverage, software_version, answer)
VALUES (%(photo_sha256)s, %(photo_name)s, %(code_set_id)s, %(localizer)s, %(k)s, public.ST_GeomFromEWKB(%(region)s),
        %(search_method)s, %(cells_in_scope)s, %(in_coverage)s, %(software_version)s, %(answer)s)
RETURNING query_id

-- AUDIT
INSERT INTO geofix.audit (actor, action, object_kind, object_id, detail)
VALUES (coalesce(%(actor)s::text, session_user::text), %(action)s, %(object_kind)s, %(object_id)s, %(detail)s)

-- TILE_VECTORS
SELECT t.s2_id, e.embedding FROM geofix.aerial_embedding e JOIN geofix.aerial_tile t USING (aerial_tile_id)
WHERE e.model_id = %(model_id)s AND t.s2_id = ANY (%(ids)s)
  AND (%(datasets)s::text[] IS NULL
       OR t.dataset_id IN (SELECT dataset_id FROM geofix.dataset WHERE name = ANY (%(datasets)s)))
