-- CANCEL
WITH RECURSIVE
tree AS (SELECT job_id, is_container FROM geofix.job WHERE job_id = %(job_id)s
         UNION SELECT j.job_id, j.is_container FROM geofix.job j JOIN tree t ON j.parent_job_id = t.job_id)

UPDATE geofix.job SET cancel_requested = true, state = CASE WHEN state = 'running' THEN state ELSE 'cancelled' END,
    finished_at = CASE WHEN state = 'running' THEN NULL ELSE clock_timestamp() END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container) AND state IN ('queued', 'running', 'lost', 'paused')
RETURNING job_id, state

-- PAUSE
WITH RECURSIVE
tree AS (SELECT job_id, is_container FROM geofix.job WHERE job_id = %(job_id)s
         UNION SELECT j.job_id, j.is_container FROM geofix.job j JOIN tree t ON j.parent_job_id = t.job_id)

UPDATE geofix.job SET pause_requested = (state = 'running'),
    state = CASE WHEN state = 'running' THEN state ELSE 'paused' END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container)
  AND (state IN ('queued', 'lost') OR state = 'running' AND kind = ANY (%(resumable)s)) RETURNING job_id, state

-- RESUME
WITH RECURSIVE
tree AS (SELECT job_id, is_container FROM geofix.job WHERE job_id = %(job_id)s
         UNION SELECT j.job_id, j.is_container FROM geofix.job j JOIN tree t ON j.parent_job_id = t.job_id)

UPDATE geofix.job SET pause_requested = false, published_at = CASE WHEN state = 'running' THEN published_at END,
    state = CASE WHEN state = 'paused' THEN 'queued' ELSE state END
WHERE job_id IN (SELECT job_id FROM tree WHERE NOT is_container)
  AND (state = 'paused' OR state = 'running' AND pause_requested) RETURNING job_id, state

-- RETRY
WITH RECURSIVE chosen AS (
    SELECT j.job_id, j.is_container FROM geofix.job j
    WHERE j.job_id = %(job_id)s AND j.state IN ('failed', 'cancelled', 'parked', 'lost')
  UNION
    SELECT j.job_id, j.is_container FROM geofix.job j JOIN chosen c
      ON (c.is_container AND j.parent_job_id = c.job_id AND j.state IN ('failed', 'cancelled', 'parked'))
      OR (j.state = 'failed' AND j.started_at IS NULL AND c.job_id = ANY (j.depends_on))
)
UPDATE geofix.job SET state = 'queued', attempts = 0, cancel_requested = false, pause_requested = false, error = NULL,
    finished_at = NULL, started_at = NULL, published_at = NULL, not_before = NULL, lease_owner = NULL,
    lease_expires_at = NULL, progress_done = 0, progress_message = '', result = CASE WHEN kind = 'pipeline' THEN result END
WHERE job_id IN (SELECT job_id FROM chosen) RETURNING job_id
