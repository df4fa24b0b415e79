-- INSERT
INSERT INTO geofix.job (job_id, kind, queue, specification, specification_version, idempotency_key, parent_job_id,
                        depends_on, max_attempts, progress_total, progress_unit, result, is_container, chunk, size)
VALUES (coalesce(%(job_id)s, gen_random_uuid()), %(kind)s, %(queue)s, %(specification)s::jsonb,
        %(specification_version)s, %(idempotency_key)s, %(parent_job_id)s, %(depends_on)s, %(max_attempts)s,
        %(progress_total)s, %(progress_unit)s, %(result)s::jsonb, %(is_container)s, %(chunk)s, %(size)s)
ON CONFLICT (idempotency_key) DO NOTHING RETURNING job_id

-- FIND
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.pause_requested, j.not_before,
j.claimed_at, j.is_container, j.chunk, j.size, j.submitted_by, j.submitted_at, j.published_at, j.started_at,
j.finished_at, j.result, j.error
 FROM geofix.job j WHERE j.job_id = %(job_id)s

-- FIND_KEY
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.pause_requested, j.not_before,
j.claimed_at, j.is_container, j.chunk, j.size, j.submitted_by, j.submitted_at, j.published_at, j.started_at,
j.finished_at, j.result, j.error
 FROM geofix.job j WHERE j.idempotency_key = %(key)s

-- FIND_PREFIX
SELECT job_id FROM geofix.job WHERE starts_with(job_id::text, %(prefix)s) LIMIT 2

-- LIST
SELECT
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.pause_requested, j.not_before,
j.claimed_at, j.is_container, j.chunk, j.size, j.submitted_by, j.submitted_at, j.published_at, j.started_at,
j.finished_at, j.result, j.error
 FROM geofix.job j
WHERE (%(states)s::text[] IS NULL OR j.state = ANY (%(states)s))
  AND (%(parent)s::uuid IS NULL OR j.parent_job_id = %(parent)s)
ORDER BY j.submitted_at DESC, j.job_id LIMIT %(limit)s

-- FIND_OPEN
SELECT job_id FROM geofix.job WHERE kind = %(kind)s AND specification = %(specification)s::jsonb AND parent_job_id IS NULL
  AND state IN ('queued', 'running', 'paused', 'lost') ORDER BY submitted_at DESC LIMIT 1

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
    started_at = coalesce(j.started_at, clock_timestamp()), claimed_at = clock_timestamp(), error = NULL,
    not_before = NULL, progress_done = 0, progress_total = NULL, progress_message = ''
WHERE j.job_id = %(job_id)s AND j.state IN ('queued', 'lost') AND j.attempts < j.max_attempts
  AND NOT j.cancel_requested AND NOT j.is_container
  AND (j.not_before IS NULL OR j.not_before <= clock_timestamp()) AND
NOT EXISTS (SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
            WHERE p.state IS DISTINCT FROM 'succeeded')

RETURNING
j.job_id, j.kind, j.queue, j.state, j.specification, j.specification_version, j.idempotency_key, j.parent_job_id,
j.depends_on, j.progress_done, j.progress_total, j.progress_unit, j.progress_message, j.attempts, j.max_attempts,
j.lease_owner, j.lease_expires_at, j.fencing_token, j.cancel_requested, j.pause_requested, j.not_before,
j.claimed_at, j.is_container, j.chunk, j.size, j.submitted_by, j.submitted_at, j.published_at, j.started_at,
j.finished_at, j.result, j.error

-- RENEW
UPDATE geofix.job SET lease_expires_at = clock_timestamp() + make_interval(secs => %(lease_s)s),
    progress_done = %(done)s, progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING cancel_requested, pause_requested

-- BRIEF
SELECT set_config('idle_in_transaction_session_timeout', %(ms)s, true)

-- FENCE
SELECT 1 FROM geofix.job WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' FOR SHARE

-- FINISH
UPDATE geofix.job SET state = %(state)s, result = %(result)s::jsonb, error = %(error)s, lease_owner = NULL,
    lease_expires_at = NULL, attempts = attempts - %(refund)s, published_at = NULL, pause_requested = false,
    not_before = clock_timestamp() + make_interval(secs => %(delay_s)s),
    finished_at = CASE WHEN %(state)s NOT IN ('queued', 'paused') THEN clock_timestamp() END,
    progress_done = CASE WHEN %(state)s = 'succeeded' THEN coalesce(progress_total, progress_done) ELSE progress_done END
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' RETURNING job_id

-- SPLIT
UPDATE geofix.job SET is_container = true, lease_owner = NULL, lease_expires_at = NULL, progress_done = 0,
    progress_total = %(total)s, progress_unit = %(unit)s, progress_message = %(message)s
WHERE job_id = %(job_id)s AND fencing_token = %(token)s AND state = 'running' AND NOT cancel_requested
RETURNING job_id
