"""Queries to begin with on the dashboard's SQL page; a test runs each on a filled and on an empty database."""

from __future__ import annotations

PHOTOS_PER_COUNTRY = """\
SELECT coalesce(country, 'outside every country') AS country, count(*) AS photos,
       count(DISTINCT s2_parent(s2_id, 15)) AS cells, min(captured_at)::date AS first, max(captured_at)::date AS last
FROM photo
GROUP BY 1
ORDER BY photos DESC"""
EVALUATIONS_SIDE_BY_SIDE = """\
SELECT evaluation, localizer, split, n,
       round(recall_100m_percent::numeric, 1) AS recall_100m, round(recall_200m_percent::numeric, 1) AS recall_200m,
       round(median_m::numeric) AS median_m, round(oracle_100m_percent::numeric, 1) AS oracle_100m
FROM evaluation_summary
ORDER BY recall_200m_percent DESC NULLS LAST"""
ACCURACY_BY_COUNTRY = """\
SELECT e.evaluation, a.region_name, a.n, round(a.accuracy::numeric, 1) AS percent,
       round(a.low::numeric, 1) AS low, round(a.high::numeric, 1) AS high, round(a.median_m::numeric) AS median_m
FROM evaluation_summary e
CROSS JOIN LATERAL accuracy_by_region(e.evaluation, 'country', 1000) a
ORDER BY e.evaluation, a.n DESC"""
LARGEST_ERRORS = """\
SELECT evaluation, source_key, round(error_m) AS error_m, nearest_training_m, error_geom AS geom
FROM prediction_top1
ORDER BY error_m DESC NULLS FIRST
LIMIT 50"""
SEEN_AGAINST_UNSEEN = """\
WITH counted AS (
  SELECT evaluation,
         CASE WHEN nearest_training_m < 25 THEN '1: under 25 m' WHEN nearest_training_m < 100 THEN '2: 25 to 100 m'
              ELSE '3: over 100 m or unknown' END AS nearest_training_photo,
         count(*) AS n, count(*) FILTER (WHERE error_m <= 100) AS hits
  FROM prediction_top1
  GROUP BY 1, 2
)
SELECT evaluation, nearest_training_photo, n, round(100.0 * hits / n, 1) AS within_100m_percent,
       round(w.low::numeric, 1) AS low, round(w.high::numeric, 1) AS high
FROM counted
CROSS JOIN LATERAL wilson(hits, n) AS w
ORDER BY 1, 2"""
COVERAGE_OF_CELLS = """\
SELECT s2_token, photos, capture_years, has_prototype, has_aerial, geom
FROM coverage(15)
ORDER BY photos DESC
LIMIT 500"""
REJECTS_BY_REASON = """\
SELECT d.name AS dataset, r.kind, r.reason, count(*) AS rejects, min(r.source_key) AS example
FROM reject r
JOIN dataset d USING (dataset_id)
GROUP BY 1, 2, 3
ORDER BY rejects DESC"""
WHERE_ELSE = """\
SELECT s.name AS code_set, n.rank, s2_token(n.s2_id_found) AS cell, round(n.score::numeric, 3) AS score, n.geom
FROM code_set s
CROSS JOIN LATERAL (
  SELECT s2_id FROM cell_code c WHERE c.code_set_id = s.code_set_id ORDER BY s2_id LIMIT 1) AS first
CROSS JOIN LATERAL similar_cells(first.s2_id, 10, s.name) AS n
WHERE s.state = 'ready'
ORDER BY 1, 2"""

EXPLAIN = "EXPLAIN (VERBOSE false, COSTS true) "

EXAMPLES = {
    "Photos per country": PHOTOS_PER_COUNTRY,
    "Evaluations side by side": EVALUATIONS_SIDE_BY_SIDE,
    "Accuracy by country": ACCURACY_BY_COUNTRY,
    "Largest errors, as lines": LARGEST_ERRORS,
    "Accuracy by distance to training photos": SEEN_AGAINST_UNSEEN,
    "Coverage of cells": COVERAGE_OF_CELLS,
    "Rejects by reason": REJECTS_BY_REASON,
    "Where else looks like this cell": WHERE_ELSE,
}
