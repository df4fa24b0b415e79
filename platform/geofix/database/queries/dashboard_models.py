"""What the models page shows: models and code sets with provenance, size, metrics and recall over time."""

from __future__ import annotations

import pandas as pd

from geofix.database.engine import Connection
from geofix.database.queries.dashboard import frame

# Each kind of vector is counted for all models at once, which several processes may do side by side.
MODEL_ROWS = """
SELECT m.name, m.kind, m.dimension, m.directory_uri, m.weights_sha256, m.config, m.input_transform, m.metrics, m.created_at,
       left(s.sha256, 12) AS snapshot, s.uri AS snapshot_uri, s.counts AS snapshot_counts,
       coalesce(pg_total_relation_size(to_regclass('geofix_leaf.photo_embedding_' || m.model_id)), 0)
         + coalesce(pg_total_relation_size(to_regclass('geofix_leaf.aerial_embedding_' || m.model_id)), 0)
         + coalesce(pg_total_relation_size(to_regclass('geofix_leaf.prototype_' || m.model_id)), 0) AS vector_bytes,
       (SELECT count(*) FROM geofix.code_set c WHERE c.model_id = m.model_id) AS code_sets,
       (SELECT count(*) FROM geofix.evaluation e WHERE e.model_id = m.model_id) AS evaluations,
       coalesce(p.n, 0) AS photos, coalesce(t.n, 0) AS tiles, coalesce(v.n, 0) AS prototypes
FROM geofix.model m LEFT JOIN geofix.snapshot s USING (snapshot_id)
LEFT JOIN (SELECT model_id, count(*) AS n FROM geofix.photo_embedding GROUP BY 1) AS p USING (model_id)
LEFT JOIN (SELECT model_id, count(*) AS n FROM geofix.aerial_embedding GROUP BY 1) AS t USING (model_id)
LEFT JOIN (SELECT model_id, count(*) AS n FROM geofix.prototype GROUP BY 1) AS v USING (model_id)
ORDER BY m.created_at DESC
"""
CODE_SET_ROWS = """
SELECT c.name, m.name AS model, c.recipe, c.level, c.dimension, c.state, c.stale_reason, c.cells, c.with_prototype, c.with_aerial,
       c.scale, c.kappa, c.temperature, c.index_parameters, c.calibration, c.config, c.created_at, c.ready_at,
       left(s.sha256, 12) AS snapshot,
       coalesce(pg_total_relation_size(to_regclass('geofix_leaf.cell_code_' || c.code_set_id)), c.bytes) AS bytes,
       r.recall, r.queries AS recall_queries, r.k AS recall_k, r.checked_at AS recall_at,
       e.evaluation, e.n AS evaluation_n, e.recall_200m_percent
FROM geofix.code_set c
JOIN geofix.model m USING (model_id)
LEFT JOIN geofix.snapshot s ON s.snapshot_id = c.snapshot_id
LEFT JOIN LATERAL (SELECT recall, queries, k, checked_at FROM geofix.recall_check q
                   WHERE q.code_set_id = c.code_set_id ORDER BY checked_at DESC LIMIT 1) AS r ON true
LEFT JOIN LATERAL (SELECT v.evaluation, v.n, v.recall_200m_percent
                   FROM geofix.evaluation_summary v JOIN geofix.evaluation o USING (evaluation_id)
                   WHERE o.code_set_id = c.code_set_id
                   ORDER BY (v.split IS NOT DISTINCT FROM 'test_seen') DESC, o.created_at DESC LIMIT 1) AS e ON true
ORDER BY c.created_at DESC
"""
RECALL_HISTORY = """
SELECT c.name AS code_set, r.checked_at, r.recall::float8 AS recall, r.k, r.queries, r.ef_search, r.scope, r.cells_in_scope
FROM geofix.recall_check r JOIN geofix.code_set c USING (code_set_id)
WHERE %(code_set)s::text IS NULL OR c.name = %(code_set)s ORDER BY r.checked_at DESC LIMIT %(limit)s
"""
EVALUATIONS_OF = """
SELECT s.evaluation, s.localizer, s.split, s.n, s.recall_100m_percent, s.recall_200m_percent, s.median_m, s.oracle_100m_percent,
       s.created_at
FROM geofix.evaluation_summary s JOIN geofix.evaluation e USING (evaluation_id)
LEFT JOIN geofix.code_set c ON c.code_set_id = e.code_set_id
LEFT JOIN geofix.model m ON m.model_id = e.model_id
WHERE c.name = %(code_set)s OR (%(code_set)s::text IS NULL AND m.name = %(model)s) ORDER BY s.created_at DESC LIMIT %(limit)s
"""


def model_rows(conn: Connection) -> pd.DataFrame:
    """Models with configuration, metrics, snapshot, sizes in bytes and what was made with them; newest first."""
    return frame(conn, MODEL_ROWS)


def code_set_rows(conn: Connection) -> pd.DataFrame:
    """Code sets with parameters, size in bytes, last recall and last evaluation; newest first."""
    return frame(conn, CODE_SET_ROWS)


def recall_history(conn: Connection, code_set: str | None, *, limit: int = 1000) -> pd.DataFrame:
    """Recall of the approximate search against the exact one over time; recall from 0 to 1."""
    return frame(conn, RECALL_HISTORY, {"code_set": code_set, "limit": limit})


def evaluations_of(
    conn: Connection, *, code_set: str | None = None, model: str | None = None, limit: int = 200
) -> pd.DataFrame:
    """Evaluations of a code set, or of a model."""
    return frame(conn, EVALUATIONS_OF, {"code_set": code_set, "model": model, "limit": limit})
