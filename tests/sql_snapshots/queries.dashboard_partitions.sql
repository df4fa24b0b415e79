-- PARTITIONS
SELECT s.name, s.kind, s.classes, s.photos, c.least, c.middle, c.most, s.cells, s.min_level, s.max_level, s.region_level,
       s.coarser, s.sets, s.datasets, s.snapshot, s.parameters, s.stale_reason, s.created_at,
       public.ST_XMin(c.extent) AS west, public.ST_YMin(c.extent) AS south, public.ST_XMax(c.extent) AS east,
       public.ST_YMax(c.extent) AS north
FROM geofix.partition_summary s
CROSS JOIN LATERAL (
  SELECT min(k.photos) AS least, percentile_disc(0.5) WITHIN GROUP (ORDER BY k.photos) AS middle, max(k.photos) AS most,
         public.ST_Extent(coalesce(k.geom, k.mean_geom)) AS extent
  FROM geofix.partition_class k WHERE k.partition_id = s.partition_id
) AS c
ORDER BY s.created_at DESC, s.partition_id

-- CLASSES
SELECT m.class, coalesce(m.s2_token, m.region_code, m.class::text) AS code, m.level, m.photos, m.parent_class,
       m.mean_lon, m.mean_lat, public.ST_AsGeoJSON(public.ST_Simplify(m.geom, %(tolerance)s, true), 5) AS shape,
       count(*) OVER () AS classes
FROM geofix.partition_map m WHERE m.partition = %(name)s ORDER BY m.photos DESC, m.class LIMIT %(limit)s

-- PLACES
SELECT m.mean_lon, m.mean_lat, m.photos::bigint FROM geofix.partition_map m
WHERE m.partition = %(name)s AND m.mean_lon IS NOT NULL AND m.mean_lat IS NOT NULL
