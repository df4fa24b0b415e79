-- NO_JIT
SET LOCAL jit = off

-- COVERAGE
WITH
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, true AS photo, p.captured_at, NULL::boolean AS tile, NULL::date AS flown_at,
         NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM  geofix.photo_record p
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, true, t.captured_at, NULL, NULL
  FROM  geofix.aerial_tile t  WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN  geofix.cell_code c
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, count(photo) AS photos, count(tile) AS aerial_tiles, min(captured_at) AS first_captured_at,
         max(captured_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT sum(step.cells) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT o.level, (i.s2_id & -o.bit) | o.bit, sum(i.photos)::bigint, sum(i.aerial_tiles)::bigint, min(i.first_captured_at),
         max(i.last_captured_at), max(i.last_aerial), bool_or(i.has_prototype), bool_or(i.has_aerial)
  FROM inside i CROSS JOIN coarser o WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 1, 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- CELL_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, true AS photo, p.captured_at, NULL::boolean AS tile, NULL::date AS flown_at,
         NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.photo_record p ON p.s2_id BETWEEN scope.lo AND scope.hi
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, true, t.captured_at, NULL, NULL
  FROM scope JOIN geofix.aerial_tile t ON t.s2_id BETWEEN scope.lo AND scope.hi WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, count(photo) AS photos, count(tile) AS aerial_tiles, min(captured_at) AS first_captured_at,
         max(captured_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT sum(step.cells) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT o.level, (i.s2_id & -o.bit) | o.bit, sum(i.photos)::bigint, sum(i.aerial_tiles)::bigint, min(i.first_captured_at),
         max(i.last_captured_at), max(i.last_aerial), bool_or(i.has_prototype), bool_or(i.has_aerial)
  FROM inside i CROSS JOIN coarser o WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 1, 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- REGION_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, true AS photo, p.captured_at, NULL::boolean AS tile, NULL::date AS flown_at,
         NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.photo_record p ON p.s2_id BETWEEN scope.lo AND scope.hi
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, true, t.captured_at, NULL, NULL
  FROM scope JOIN geofix.aerial_tile t ON t.s2_id BETWEEN scope.lo AND scope.hi WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, count(photo) AS photos, count(tile) AS aerial_tiles, min(captured_at) AS first_captured_at,
         max(captured_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
), total AS (
  SELECT count(*) AS cells, sum(photos)::bigint AS all_photos, sum(aerial_tiles)::bigint AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT sum(step.cells) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT o.level, (i.s2_id & -o.bit) | o.bit, sum(i.photos)::bigint, sum(i.aerial_tiles)::bigint, min(i.first_captured_at),
         max(i.last_captured_at), max(i.last_aerial), bool_or(i.has_prototype), bool_or(i.has_aerial)
  FROM inside i CROSS JOIN coarser o WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 1, 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- REGION_SHAPE
SELECT public.ST_AsBinary(geom) FROM geofix.region WHERE level = %(region_level)s AND code = %(region_code)s

-- PHOTO_CELLS
WITH cell AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS photos FROM geofix.photo_record p GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s
