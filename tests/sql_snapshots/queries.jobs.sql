-- INSERT
INSERT INTO geofix.job (job_id, kind, queue, specification, specification_version, idempotency_key, parent_job_id,
                        depends_on, max_attempts, progress_total, progress_unit, result)
VALUES (coalesce(%(job_id)s, gen_random_uuid()), %(kind)s, %(queue)s, %(specification)s::jsonb,
        %(specification_version)s, %(idempotency_key)s, %(parent_job_id)s, %(depends_on)s, %(max_attempts)s,
        %(progress_total)s, %(progress_unit)s, %(result)s::jsonb)
ON CONFLICT (idempotency_key) DO NOTHING RETURNING job_id

-- FIND
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.submitted_by, j.submitted_at,
j.published_at, j.started_at, j.finished_at, j.result, j.error
 FROM geofix.job j WHERE j.job_id = %(job_id)s

-- FIND_KEY
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.submitted_by, j.submitted_at,
j.published_at, j.started_at, j.finished_at, j.result, j.error
 FROM geofix.job j WHERE j.idempotency_key = %(key)s

-- FIND_PREFIX
SELECT job_id FROM geofix.job WHERE starts_with(job_id::text, %(prefix)s) LIMIT 2

-- LIST
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.submitted_by, j.submitted_at,
j.published_at, j.started_at, j.finished_at, j.result, j.error
 FROM geofix.job j
WHERE (%(states)s::text[] IS NULL OR j.state = ANY (%(states)s))
  AND (%(parent)s::uuid IS NULL OR j.parent_job_id = %(parent)s)
ORDER BY j.submitted_at DESC, j.job_id LIMIT %(limit)s

-- EXISTING
SELECT job_id FROM geofix.job WHERE job_id = ANY (%(ids)s)

-- EVENT
INSERT INTO geofix.job_event (job_id, kind, message, data) VALUES (%(job_id)s, %(kind)s, %(message)s, %(data)s::jsonb)

-- EVENTS
SELECT job_event_id, at, kind, message, data FROM geofix.job_event
WHERE job_id = %(job_id)s AND job_event_id > %(after)s ORDER BY job_event_id

-- CLAIM
UPDATE geofix.job j SET state = 'running', attempts = j.attempts + 1, fencing_token = j.fencing_token + 1,
    lease_owner = %(owner)s, lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    started_at = coalesce(j.started_at, clock_timestamp()), error = NULL,
    progress_done = 0, progress_total = NULL, progress_message = ''
WHERE j.job_id = %(job_id)s AND j.state IN ('queued', 'lost') AND j.attempts < j.max_attempts
  AND NOT j.cancel_requested AND j.kind <> 'pipeline' AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

RETURNING
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.submitted_by, j.submitted_at,
j.published_at, j.started_at, j.finished_at, j.result, j.error

-- RENEW
UPDATE geofix.job SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    progress_done = %(done)s, progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING cancel_requested

-- FENCE
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' FOR SHARE

-- FINISH
UPDATE geofix.job SET state = %(state)s, result = %(result)s::jsonb, error = %(error)s, lease_owner = NULL,
    lease_expires_at = NULL, attempts = attempts - %(refund)s,
    finished_at = CASE WHEN %(state)s <> 'queued' THEN clock_timestamp() END,
    published_at = CASE WHEN %(state)s = 'queued' AND %(refund)s = 0 THEN clock_timestamp() END,
    progress_done = CASE WHEN %(state)s = 'succeeded' THEN coalesce(progress_total, progress_done) ELSE progress_done END
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING job_id

-- CANCEL
UPDATE geofix.job SET cancel_requested = true,
    state = CASE WHEN state = 'running' AND kind <> 'pipeline' THEN state ELSE 'cancelled' END,
    finished_at = CASE WHEN state = 'running' AND kind <> 'pipeline' THEN NULL ELSE clock_timestamp() END
WHERE (job_id = %(job_id)s AND kind <> 'pipeline' OR parent_job_id = %(job_id)s)
  AND state IN ('queued', 'running', 'lost', 'paused') RETURNING job_id, state

-- RETRY
WITH RECURSIVE chosen AS (
    SELECT j.job_id, j.kind FROM geofix.job j
    WHERE j.job_id = %(job_id)s AND j.state IN ('failed', 'cancelled', 'parked', 'lost')
  UNION
    SELECT j.job_id, j.kind FROM geofix.job j JOIN chosen c
      ON (c.kind = 'pipeline' AND j.parent_job_id = c.job_id AND j.state IN ('failed', 'cancelled', 'parked'))
      OR (j.state = 'failed' AND j.started_at IS NULL AND c.job_id = ANY (j.depends_on))
)
UPDATE geofix.job SET state = 'queued', attempts = 0, cancel_requested = false, error = NULL, finished_at = NULL,
    started_at = NULL, published_at = NULL, lease_owner = NULL, lease_expires_at = NULL, progress_done = 0,
    progress_message = '', result = CASE WHEN kind = 'pipeline' THEN result END
WHERE job_id IN (SELECT job_id FROM chosen) RETURNING job_id

-- EXPIRE
UPDATE geofix.job SET state = 'lost' WHERE job_id IN (
    SELECT job_id FROM geofix.job WHERE state = 'running' AND lease_expires_at < clock_timestamp()
    ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, lease_owner

-- RECOVER
UPDATE geofix.job SET lease_expires_at = NULL, published_at = NULL,
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN attempts >= max_attempts THEN 'parked' ELSE 'queued' END,
    finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts THEN clock_timestamp() END,
    error = CASE WHEN attempts >= max_attempts AND NOT cancel_requested THEN
        format('The worker ended or fell silent in each of %s attempts, last %s, at "%s". Look at that worker''s log and memory; then `geofix jobs retry`.',
               attempts, coalesce(lease_owner, 'unknown'), progress_message) END
WHERE job_id IN (SELECT job_id FROM geofix.job WHERE state = 'lost' ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, state, coalesce(error, '')

-- FAIL_DEPENDENTS
WITH RECURSIVE doomed AS (
    SELECT j.job_id, p.job_id AS cause_id, p.kind AS cause_kind, p.state AS cause_state
    FROM geofix.job j CROSS JOIN unnest(j.depends_on) AS d (job_id) JOIN geofix.job p ON p.job_id = d.job_id
    WHERE j.state = 'queued' AND p.state IN ('failed', 'cancelled', 'parked')
  UNION
    SELECT j.job_id, d.cause_id, d.cause_kind, d.cause_state
    FROM geofix.job j JOIN doomed d ON d.job_id = ANY (j.depends_on) WHERE j.state = 'queued'
), first AS (
    SELECT DISTINCT ON (job_id) * FROM doomed ORDER BY job_id, cause_id
)
UPDATE geofix.job j SET state = 'failed', finished_at = clock_timestamp(),
    error = format('Not begun: job %s (%s), which it depends on, is %s. Mend that one and `geofix jobs retry %s`.',
                   f.cause_id, f.cause_kind, f.cause_state, f.cause_id)
FROM first f WHERE j.job_id = f.job_id AND j.state = 'queued' RETURNING j.job_id, j.error

-- DUE
SELECT j.job_id, j.queue, j.published_at IS NOT NULL FROM geofix.job j
WHERE j.state = 'queued' AND j.kind <> 'pipeline' AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

  AND (j.published_at IS NULL OR j.published_at < clock_timestamp() - make_interval(secs => %(redeliver_s)s))
ORDER BY j.published_at NULLS FIRST, j.submitted_at LIMIT 10000

-- FRESH
SELECT j.job_id, j.queue FROM geofix.job j
WHERE j.job_id = ANY (%(ids)s) AND j.state = 'queued' AND j.kind <> 'pipeline' AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

ORDER BY j.submitted_at

-- DEPENDENTS
SELECT job_id FROM geofix.job WHERE state = 'queued' AND depends_on @> ARRAY[%(job_id)s::uuid]

-- PUBLISHED
UPDATE geofix.job SET published_at = clock_timestamp() WHERE job_id = ANY (%(ids)s) AND state = 'queued'

-- NEXT_CHILD
SELECT j.job_id FROM geofix.job j WHERE j.parent_job_id = %(parent)s AND j.state IN ('queued', 'lost') AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

ORDER BY j.submitted_at, j.job_id LIMIT 1

-- LOCK
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s FOR UPDATE

-- SETTLE
UPDATE geofix.job p SET state = c.state, progress_done = c.done, progress_total = c.total, progress_unit = 'stages',
    progress_message = coalesce(c.now, ''), started_at = c.started_at, error = c.error,
    finished_at = CASE WHEN c.state NOT IN ('queued', 'running') THEN clock_timestamp() END,
    result = CASE WHEN c.state = 'succeeded' THEN p.result || jsonb_build_object('results', c.results) ELSE p.result END
FROM (
    SELECT count(*) AS total, count(*) FILTER (WHERE j.state = 'succeeded') AS done, min(j.started_at) AS started_at,
           CASE WHEN bool_or(j.state IN ('running', 'lost', 'paused'))
                  OR bool_or(j.state = 'queued') AND bool_or(j.started_at IS NOT NULL) THEN 'running'
                WHEN bool_or(j.state = 'queued') THEN 'queued'
                WHEN bool_and(j.state = 'succeeded') THEN 'succeeded'
                WHEN bool_or(j.state = 'parked') THEN 'parked'
                WHEN bool_or(j.state = 'failed' AND j.started_at IS NOT NULL) THEN 'failed'
                WHEN bool_or(j.state = 'cancelled') THEN 'cancelled'
                ELSE 'failed' END AS state,
           string_agg(s.name, ', ' ORDER BY j.started_at) FILTER (WHERE j.state = 'running') AS now,
           string_agg(s.name || ' (' || j.job_id || '): ' || j.error, '; ' ORDER BY j.finished_at)
               FILTER (WHERE j.error IS NOT NULL AND (j.started_at IS NOT NULL OR j.state = 'parked')) AS error,
           jsonb_object_agg(s.name, j.result) AS results
    FROM geofix.job p JOIN LATERAL jsonb_each_text(p.result -> 'jobs') AS s (name, job_id) ON true
    JOIN geofix.job j ON j.job_id = s.job_id::uuid
    WHERE p.job_id = %(parent)s
) c WHERE p.job_id = %(parent)s AND (p.state, p.progress_done, p.progress_message)
    IS DISTINCT FROM (c.state, c.done, coalesce(c.now, ''))
RETURNING p.state

-- OPEN_PARENTS
SELECT job_id FROM geofix.job WHERE kind = 'pipeline' AND state IN ('queued', 'running')
