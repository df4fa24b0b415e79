-- NO_JIT
SET LOCAL jit = off

-- ALONE
SET LOCAL max_parallel_workers_per_gather = 0

-- _ROWS
SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, 1 AS photos, p.captured_at AS first_at, p.captured_at AS last_at, NULL::integer AS tiles,
       NULL::date AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
FROM {scope} geofix.photo_record p {on_p}
UNION ALL
SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, 1, t.captured_at, NULL, NULL
FROM {scope} geofix.aerial_tile t {on_t} WHERE t.level >= %(level)s

-- _GRID
SELECT (g.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, g.photos, g.first_captured_at AS first_at, g.last_captured_at AS last_at,
       g.aerial_tiles AS tiles, g.last_aerial AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
FROM {scope} geofix.grid_cell g {on_g} WHERE g.level = %(grid)s

-- COVERAGE
WITH
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, 1 AS photos, p.captured_at AS first_at, p.captured_at AS last_at, NULL::integer AS tiles,
         NULL::date AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM  geofix.photo_record p
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, 1, t.captured_at, NULL, NULL
  FROM  geofix.aerial_tile t  WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN  geofix.cell_code c
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- CELL_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, 1 AS photos, p.captured_at AS first_at, p.captured_at AS last_at, NULL::integer AS tiles,
         NULL::date AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.photo_record p ON p.s2_id BETWEEN scope.lo AND scope.hi
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, 1, t.captured_at, NULL, NULL
  FROM scope JOIN geofix.aerial_tile t ON t.s2_id BETWEEN scope.lo AND scope.hi WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- REGION_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, 1 AS photos, p.captured_at AS first_at, p.captured_at AS last_at, NULL::integer AS tiles,
         NULL::date AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.photo_record p ON p.s2_id BETWEEN scope.lo AND scope.hi
  UNION ALL
  SELECT (t.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, 1, t.captured_at, NULL, NULL
  FROM scope JOIN geofix.aerial_tile t ON t.s2_id BETWEEN scope.lo AND scope.hi WHERE t.level >= %(level)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- GRID_COVERAGE
WITH
one AS (
  SELECT (g.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, g.photos, g.first_captured_at AS first_at, g.last_captured_at AS last_at,
         g.aerial_tiles AS tiles, g.last_aerial AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM  geofix.grid_cell g  WHERE g.level = %(grid)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN  geofix.cell_code c
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- GRID_CELL_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (g.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, g.photos, g.first_captured_at AS first_at, g.last_captured_at AS last_at,
         g.aerial_tiles AS tiles, g.last_aerial AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.grid_cell g ON g.s2_id BETWEEN scope.lo AND scope.hi WHERE g.level = %(grid)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT * FROM cell
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- GRID_REGION_COVERAGE
WITH scope AS (
  SELECT * FROM unnest(%(lo)s::bigint[], %(hi)s::bigint[]) AS r (lo, hi)
),
one AS (
  SELECT (g.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, g.photos, g.first_captured_at AS first_at, g.last_captured_at AS last_at,
         g.aerial_tiles AS tiles, g.last_aerial AS flown_at, NULL::boolean AS has_prototype, NULL::boolean AS has_aerial
  FROM scope JOIN geofix.grid_cell g ON g.s2_id BETWEEN scope.lo AND scope.hi WHERE g.level = %(grid)s
  UNION ALL
  SELECT (c.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, NULL, NULL, NULL, NULL, NULL, c.has_prototype, c.has_aerial
  FROM geofix.code_set s CROSS JOIN scope JOIN geofix.cell_code c ON c.s2_id BETWEEN scope.lo AND scope.hi
  WHERE c.code_set_id = s.code_set_id AND s.state IN ('ready', 'stale') AND s.level >= %(level)s
), cell AS (
  SELECT s2_id, coalesce(sum(photos), 0)::integer AS photos, coalesce(sum(tiles), 0)::integer AS aerial_tiles,
         min(first_at) AS first_captured_at, max(last_at) AS last_captured_at, max(flown_at) AS last_aerial,
         coalesce(bool_or(has_prototype), false) AS has_prototype, coalesce(bool_or(has_aerial), false) AS has_aerial
  FROM one GROUP BY 1
), inside AS MATERIALIZED (
  SELECT cell.* FROM cell CROSS JOIN LATERAL (SELECT geofix.s2_center(cell.s2_id) AS at OFFSET 0) AS centre
  WHERE EXISTS (
    SELECT FROM geofix.region_part g JOIN geofix.region r USING (region_id)
    WHERE r.level = %(region_level)s AND r.code = %(region_code)s
      AND g.geom OPERATOR(public.&&) centre.at AND public.ST_Covers(g.geom, centre.at))
), total AS (
  SELECT count(*) AS cells, sum(photos) AS all_photos, sum(aerial_tiles) AS all_tiles,
         count(*) FILTER (WHERE photos > 0) AS photo_cells, count(*) FILTER (WHERE aerial_tiles > 0) AS tile_cells,
         count(*) FILTER (WHERE has_prototype OR has_aerial) AS code_cells
  FROM inside
), step AS MATERIALIZED (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps, count(*) AS cells
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM inside) AS pair
  WHERE differs IS NOT NULL AND (SELECT cells FROM total) > %(limit)s GROUP BY 1
), coarser AS (
  SELECT max(at) AS level, 1::bigint << (2 * (30 - max(at))) AS bit FROM generate_series(0, %(level)s - 1) AS at
  WHERE 1 + (SELECT coalesce(sum(step.cells), 0) FROM step WHERE step.steps > 30 - at) <= %(limit)s
), fullest AS (
  SELECT * FROM inside ORDER BY photos DESC, aerial_tiles DESC, s2_id LIMIT %(limit)s
), shown AS (
  SELECT %(level)s::integer AS level, f.* FROM fullest f
  UNION ALL
  SELECT (SELECT level FROM coarser), (s2_id & -(SELECT bit FROM coarser)) | (SELECT bit FROM coarser), sum(photos),
         sum(aerial_tiles), min(first_captured_at), max(last_captured_at), max(last_aerial), bool_or(has_prototype),
         bool_or(has_aerial)
  FROM inside WHERE (SELECT cells FROM total) > %(limit)s GROUP BY 2
)
SELECT geofix.s2_token(s2_id) AS cell, level, photos, aerial_tiles, first_captured_at, last_captured_at, last_aerial,
       has_prototype, has_aerial, total.*, s2_id
FROM shown CROSS JOIN total ORDER BY level DESC, photos DESC, aerial_tiles DESC, s2_id

-- REGION_SHAPE
SELECT public.ST_AsBinary(geom) FROM geofix.region WHERE level = %(region_level)s AND code = %(region_code)s

-- _PHOTO_CELLS
WITH cell AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, {photos} AS photos FROM {held} GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s

-- PHOTO_CELLS
WITH cell AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, count(*) AS photos FROM geofix.photo_record p GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s

-- GRID_PHOTO_CELLS
WITH cell AS (
  SELECT (p.s2_id & -%(bit)s::bigint) | %(bit)s::bigint AS s2_id, sum(p.photos) AS photos FROM geofix.grid_cell p WHERE p.level = %(grid)s AND p.photos > 0 GROUP BY 1
)
SELECT geofix.s2_token(s2_id) AS code, photos, count(*) OVER () AS cells, (sum(photos) OVER ())::bigint AS all_photos, s2_id
FROM cell ORDER BY photos DESC, s2_id LIMIT %(limit)s
