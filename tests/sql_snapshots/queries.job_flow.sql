-- MEND_CLOCK
UPDATE geofix.job SET
    lease_expires_at = CASE WHEN lease_expires_at IS NOT NULL THEN
        least(lease_expires_at, clock_timestamp() + make_interval(secs => %(lease_s)s)) END,
    not_before = CASE WHEN not_before <= clock_timestamp() + make_interval(secs => %(longest_s)s) THEN not_before END,
    published_at = CASE WHEN published_at <= clock_timestamp() + interval '1 minute' THEN published_at END
WHERE job_id IN (
    SELECT job_id FROM geofix.job WHERE state IN ('queued', 'running')
      AND (lease_expires_at > clock_timestamp() + make_interval(secs => 2 * %(lease_s)s)
           OR not_before > clock_timestamp() + make_interval(secs => %(longest_s)s)
           OR published_at > clock_timestamp() + interval '1 minute')
    ORDER BY job_id FOR UPDATE SKIP LOCKED)

-- EXPIRE
UPDATE geofix.job SET state = 'lost' WHERE job_id IN (
    SELECT job_id FROM geofix.job WHERE state = 'running' AND lease_expires_at < clock_timestamp()
    ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, lease_owner

-- RECOVER
UPDATE geofix.job SET lease_expires_at = NULL, published_at = NULL, pause_requested = false,
    state = CASE WHEN cancel_requested THEN 'cancelled' WHEN pause_requested THEN 'paused'
                 WHEN attempts >= max_attempts THEN 'parked' ELSE 'queued' END,
    not_before = CASE WHEN attempts > 1 THEN
        clock_timestamp() + make_interval(secs => least(%(retry_s)s * 4.0 ^ (attempts - 2), %(longest_s)s)) END,
    finished_at = CASE WHEN cancel_requested OR attempts >= max_attempts AND NOT pause_requested
                       THEN clock_timestamp() END,
    error = CASE WHEN attempts >= max_attempts AND NOT cancel_requested AND NOT pause_requested THEN
        format('The worker ended or fell silent in each of %%s attempts, last %%s, at "%%s". Look at that worker''s log and memory; then `geofix jobs retry`.',
               attempts, coalesce(lease_owner, 'unknown'), progress_message) END
WHERE job_id IN (SELECT job_id FROM geofix.job WHERE state = 'lost' ORDER BY job_id FOR UPDATE SKIP LOCKED)
RETURNING job_id, state, coalesce(error, '')

-- FAIL_DEPENDENTS
WITH RECURSIVE doomed AS (
    SELECT j.job_id, p.job_id AS cause_id, p.kind AS cause_kind, p.state AS cause_state
    FROM geofix.job j CROSS JOIN unnest(j.depends_on) AS d (job_id) JOIN geofix.job p ON p.job_id = d.job_id
    WHERE j.state IN ('queued', 'paused') AND p.state IN ('failed', 'cancelled', 'parked')
  UNION
    SELECT j.job_id, d.cause_id, d.cause_kind, d.cause_state
    FROM geofix.job j JOIN doomed d ON d.job_id = ANY (j.depends_on) WHERE j.state IN ('queued', 'paused')
), first AS (
    SELECT DISTINCT ON (job_id) * FROM doomed ORDER BY job_id, cause_id
)
UPDATE geofix.job j SET state = 'failed', finished_at = clock_timestamp(),
    error = format('Not begun: job %s (%s), which it depends on, is %s. Mend that one and `geofix jobs retry %s`.',
                   f.cause_id, f.cause_kind, f.cause_state, f.cause_id)
FROM first f WHERE j.job_id = f.job_id AND j.state IN ('queued', 'paused') RETURNING j.job_id, j.error

-- DUE
SELECT j.job_id, j.queue, j.published_at IS NOT NULL FROM geofix.job j
WHERE j.state = 'queued' AND NOT j.is_container AND (j.not_before IS NULL OR j.not_before <= clock_timestamp())
  AND (j.published_at IS NULL OR j.published_at < clock_timestamp() - make_interval(secs => %(redeliver_s)s))
  AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

ORDER BY j.published_at NULLS FIRST, j.submitted_at LIMIT 10000

-- FRESH
SELECT j.job_id, j.queue FROM geofix.job j
WHERE j.job_id = ANY (%(ids)s) AND j.state = 'queued' AND NOT j.is_container
  AND (j.not_before IS NULL OR j.not_before <= clock_timestamp()) AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

ORDER BY j.submitted_at, j.chunk

-- DEPENDENTS
SELECT job_id FROM geofix.job WHERE state = 'queued' AND depends_on @> ARRAY[%(job_id)s::uuid]

-- PUBLISHED
UPDATE geofix.job SET published_at = clock_timestamp() WHERE job_id = ANY (%(ids)s) AND state = 'queued'

-- NEXT_CHILD
WITH RECURSIVE below AS (
    SELECT * FROM geofix.job WHERE parent_job_id = %(parent)s
  UNION ALL
    SELECT c.* FROM geofix.job c JOIN below b ON c.parent_job_id = b.job_id WHERE b.is_container
)
SELECT j.job_id FROM below j
WHERE j.state IN ('queued', 'lost') AND NOT j.is_container
  AND (j.not_before IS NULL OR j.not_before <= clock_timestamp()) AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

ORDER BY j.submitted_at, j.chunk NULLS FIRST, j.job_id LIMIT 1

-- LOCK
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s FOR UPDATE

-- LOCK_IF_FREE
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s FOR UPDATE SKIP LOCKED

-- SETTLE
UPDATE geofix.job p SET state = c.state, progress_done = c.done, progress_total = c.total, progress_unit = 'stages',
    progress_message = coalesce(c.now, ''), started_at = c.started_at, error = c.error,
    finished_at = CASE WHEN c.state NOT IN ('queued', 'running', 'paused') THEN clock_timestamp() END,
    result = CASE WHEN c.state = 'succeeded' THEN p.result || jsonb_build_object('results', c.results) ELSE p.result END
FROM (
    SELECT count(*) AS total, count(*) FILTER (WHERE j.state = 'succeeded') AS done, min(j.started_at) AS started_at,
           CASE WHEN bool_or(j.state IN ('running', 'lost')) THEN 'running'
                WHEN bool_or(j.state = 'paused') THEN 'paused'
                WHEN bool_or(j.state = 'queued') AND bool_or(j.started_at IS NOT NULL) THEN 'running'
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

-- SETTLE_CHUNKS
UPDATE geofix.job p SET state = c.state, progress_done = c.done, progress_total = c.total,
    progress_message = c.message, error = c.error,
    finished_at = CASE WHEN c.state NOT IN ('queued', 'running', 'paused') THEN clock_timestamp() END
FROM (
    SELECT sum(CASE WHEN j.state = 'succeeded' THEN j.size ELSE least(j.progress_done, j.size) END) AS done,
           sum(j.size) AS total,
           CASE WHEN bool_or(j.state IN ('running', 'lost')) THEN 'running'
                WHEN bool_or(j.state = 'paused') THEN 'paused'
                WHEN bool_or(j.state = 'queued') THEN 'running'
                WHEN bool_and(j.state = 'succeeded') THEN 'succeeded'
                WHEN bool_or(j.state = 'parked') THEN 'parked'
                WHEN bool_or(j.state = 'failed') THEN 'failed'
                ELSE 'cancelled' END AS state,
           format('%%s of %%s chunks', count(*) FILTER (WHERE j.state = 'succeeded'), count(*)) AS message,
           string_agg(format('chunk %%s (%%s): %%s', j.chunk, j.job_id, j.error), '; ' ORDER BY j.chunk)
               FILTER (WHERE j.state = 'parked' OR j.state = 'failed' AND j.started_at IS NOT NULL) AS error
    FROM geofix.job j WHERE j.parent_job_id = %(parent)s AND j.chunk IS NOT NULL
) c WHERE p.job_id = %(parent)s AND (p.state, p.progress_done, p.progress_message)
    IS DISTINCT FROM (c.state, c.done, c.message)
RETURNING p.state

-- CHUNK_RESULTS
SELECT result FROM geofix.job WHERE parent_job_id = %(parent)s AND chunk IS NOT NULL ORDER BY chunk

-- STORE_RESULT
UPDATE geofix.job SET result = %(result)s::jsonb WHERE job_id = %(job_id)s

-- OPEN_PARENTS
SELECT job_id FROM geofix.job WHERE is_container AND state IN ('queued', 'running', 'paused')
