-- SPACES
SELECT * FROM (
  SELECT 'codes' AS kind, c.name, c.recipe, c.level::integer AS level, c.cells, c.created_at FROM geofix.code_set c
  WHERE c.state IN ('ready', 'stale') AND c.cells > 0
  UNION ALL
  SELECT 'prototypes', m.name, 'prototype', geofix.s2_level(p.s2_id), p.cells, m.created_at FROM geofix.model m
  CROSS JOIN LATERAL (SELECT min(s2_id) AS s2_id, count(*) AS cells FROM geofix.prototype WHERE model_id = m.model_id) AS p
  WHERE p.cells > 0
) AS s
ORDER BY kind, array_position(ARRAY['hybrid', 'prototype', 'cellmean', 'aerial'], recipe), created_at DESC

-- CODE_MEANS
SELECT (s2_id & -{bit}::bigint) | {bit}::bigint, avg(code)::public.halfvec({dimension}) FROM geofix.cell_code
WHERE code_set_id = {key} GROUP BY 1 ORDER BY 1

-- PROTOTYPE_MEANS
SELECT (s2_id & -{bit}::bigint) | {bit}::bigint, avg(embedding)::public.halfvec({dimension}) FROM geofix.prototype
WHERE model_id = {key} GROUP BY 1 ORDER BY 1

-- _STEPS
SELECT steps, count(*) FROM (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM {of}) AS pair WHERE differs IS NOT NULL) AS step
GROUP BY 1

-- CODE_STEPS
SELECT steps, count(*) FROM (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM geofix.cell_code WHERE code_set_id = %(key)s) AS pair WHERE differs IS NOT NULL) AS step
GROUP BY 1

-- PROTOTYPE_STEPS
SELECT steps, count(*) FROM (
  SELECT CASE WHEN differs < 0 THEN 31 ELSE width_bucket(differs, %(bits)s::bigint[]) END AS steps
  FROM (SELECT s2_id # lag(s2_id) OVER (ORDER BY s2_id) AS differs FROM geofix.prototype WHERE model_id = %(key)s) AS pair WHERE differs IS NOT NULL) AS step
GROUP BY 1
