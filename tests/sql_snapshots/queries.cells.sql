-- STAMP
INSERT INTO geofix.grid_level (level, changes, tile_levels)
SELECT %(level)s, (SELECT count(*) FROM geofix.cell_change), ARRAY(SELECT DISTINCT level FROM geofix.aerial_tile ORDER BY 1)
ON CONFLICT (level) DO UPDATE SET
    changes = excluded.changes, tile_levels = excluded.tile_levels, written_at = now()

-- REFRESH
INSERT INTO geofix.grid_cell (level, s2_id, photos, first_captured_at, last_captured_at, aerial_tiles, last_aerial)
SELECT %(level)s, coalesce(p.s2_id, t.s2_id), coalesce(p.photos, 0), p.first_captured_at, p.last_captured_at,
       coalesce(t.aerial_tiles, 0), t.last_aerial
FROM (SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS photos, min(captured_at) AS first_captured_at,
             max(captured_at) AS last_captured_at
      FROM geofix.photo_record GROUP BY 1) AS p
FULL JOIN (SELECT geofix.s2_parent(s2_id, %(level)s) AS s2_id, count(*) AS aerial_tiles, max(captured_at) AS last_aerial
           FROM geofix.aerial_tile WHERE level >= %(level)s GROUP BY 1) AS t USING (s2_id)
ORDER BY 2

-- CLEAR
DELETE FROM geofix.grid_cell WHERE level = %(level)s

-- FITTING
SELECT geofix.fitting_level(%(level)s)

-- LOG_ROWS
SELECT count(*), pg_total_relation_size('geofix.cell_change') FROM geofix.cell_change

-- HOLD_LOG
LOCK TABLE geofix.cell_change, geofix.grid_level IN SHARE ROW EXCLUSIVE MODE NOWAIT

-- FOLD
UPDATE geofix.grid_level g SET changes = CASE WHEN EXISTS (
    SELECT FROM geofix.fitting_grid f WHERE f.level = g.level) THEN 0 ELSE -1 END

-- EMPTY_LOG
DELETE FROM geofix.cell_change

-- SUMMARY
SELECT count(*), coalesce(sum(photos), 0)::bigint, coalesce(max(photos), 0),
       coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY photos) FILTER (WHERE photos > 0), 0),
       count(*) FILTER (WHERE photos > 0), count(*) FILTER (WHERE aerial_tiles > 0)
FROM geofix.grid_cell WHERE level = %(level)s

-- FIND_REGION
SELECT public.ST_AsEWKB(geom) FROM geofix.region
WHERE (%(level)s::text IS NULL OR level = %(level)s) AND (code = %(code)s OR lower(name) = lower(%(code)s))
ORDER BY code = %(code)s DESC, area_km2 DESC, region_id LIMIT 1

-- REGION_AT
SELECT u.n, (SELECT r.code FROM geofix.region_part p JOIN geofix.region r USING (region_id)
             WHERE p.level = 'country'
               AND public.ST_Covers(p.geom, public.ST_SetSRID(public.ST_MakePoint(u.lon, u.lat), 4326))
             ORDER BY r.area_km2, r.region_id LIMIT 1)
FROM unnest(%(lon)s::float8[], %(lat)s::float8[]) WITH ORDINALITY AS u(lon, lat, n) ORDER BY u.n
