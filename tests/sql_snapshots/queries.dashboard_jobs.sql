-- STATE_COUNTS
SELECT state, count(*) AS jobs FROM geofix.job WHERE parent_job_id IS NULL GROUP BY 1

-- KINDS
SELECT kind, count(*) AS jobs FROM geofix.job GROUP BY 1 ORDER BY 1

-- RECENT
SELECT j.job_id::text AS job_id, j.kind, j.queue, j.state, j.progress_done, j.progress_total, j.progress_unit, j.progress_message,
       j.attempts, j.submitted_by, j.submitted_at, left(j.error, 200) AS error,
       extract(epoch FROM coalesce(j.started_at, j.finished_at, clock_timestamp()) - j.submitted_at)::float8 AS waited_s,
       extract(epoch FROM coalesce(j.finished_at, clock_timestamp()) - j.started_at)::float8 AS ran_s,
       (SELECT count(*) FROM geofix.job c WHERE c.parent_job_id = j.job_id) AS parts, count(*) OVER () AS jobs
FROM geofix.job j
WHERE j.parent_job_id IS NULL AND (%(state)s::text IS NULL OR j.state = %(state)s)
  AND (%(kind)s::text IS NULL OR j.kind = %(kind)s)
ORDER BY j.submitted_at DESC, j.job_id LIMIT %(limit)s OFFSET %(offset)s

-- QUEUES
SELECT q.queue, count(j.job_id) FILTER (WHERE j.state = 'queued') AS queued, count(j.job_id) FILTER (WHERE j.state = 'running') AS running,
       extract(epoch FROM clock_timestamp() - min(j.submitted_at) FILTER (WHERE j.state = 'queued'))::float8 AS oldest_s
FROM unnest(ARRAY['interactive', 'cpu', 'gpu']) AS q (queue)
LEFT JOIN geofix.job j ON j.queue = q.queue AND j.state IN ('queued', 'running')
GROUP BY 1 ORDER BY array_position(ARRAY['interactive', 'cpu', 'gpu'], q.queue)

-- LOG
SELECT * FROM (
  SELECT job_event_id, at, kind, message, data FROM geofix.job_event
  WHERE job_id = %(job_id)s AND (%(progress)s OR kind <> 'progress') ORDER BY job_event_id DESC LIMIT %(limit)s
) AS newest ORDER BY job_event_id

-- PROGRESS
SELECT job_event_id, at, message FROM geofix.job_event
WHERE job_id = %(job_id)s AND kind = 'progress' AND message LIKE 'epoch %%' ORDER BY job_event_id LIMIT %(limit)s

-- PARTS
SELECT j.job_id::text AS job_id, j.kind, j.queue, j.state, j.depends_on::text[] AS depends_on, j.progress_done, j.progress_total,
       j.progress_message, j.attempts, j.submitted_at, j.started_at, j.finished_at, left(j.error, 200) AS error,
       (SELECT s.key FROM geofix.job p CROSS JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(p.result -> 'jobs')
          WHEN 'object' THEN p.result -> 'jobs' ELSE '{}'::jsonb END) AS s
        WHERE p.job_id = j.parent_job_id AND s.value = j.job_id::text) AS name, count(*) OVER () AS parts
FROM geofix.job j WHERE j.parent_job_id = %(job_id)s ORDER BY j.started_at NULLS LAST, j.submitted_at, j.job_id LIMIT %(limit)s
