"""Jobs for benchmarks/dashboard.py: of most states and kinds, with logs; some are pipelines or trainings."""

from __future__ import annotations

from geofix.database.engine import Connection

STAGES = 12  # of a pipeline
EPOCHS = 200  # of a training
# One in 25 is a pipeline, one in 25 a training; the newest are open, the others have ended.
JOBS = """
INSERT INTO job (kind, queue, state, specification, progress_done, progress_total, progress_unit,
                 progress_message, attempts, submitted_at, published_at, started_at, finished_at, error,
                 is_container)
SELECT kind,
       CASE WHEN kind IN ('train', 'embed') THEN 'gpu' WHEN kind = 'localize' THEN 'interactive'
            ELSE 'cpu' END,
       state, jsonb_build_object('kind', kind, 'model', 'street', 'snapshot', 'DIR' || i, 'out', 'out/' || i),
       CASE WHEN state = 'succeeded' THEN 1000 WHEN state = 'queued' THEN 0 ELSE i %% 900 END, 1000, 'photos',
       CASE WHEN state = 'queued' THEN '' ELSE 'batch ' || i END, (state <> 'queued')::int, at, at,
       CASE WHEN state NOT IN ('queued', 'cancelled') THEN at + interval '3 s' END,
       CASE WHEN state NOT IN ('running', 'queued') THEN at + (10 + i %% 400) * interval '1 s' END,
       CASE WHEN state IN ('failed', 'parked') THEN 'The folder of photos is gone: photos/' || i END,
       kind = 'pipeline'
FROM (SELECT i, now() - i * interval '7 min' AS at,
             (ARRAY['pipeline', 'train', 'snapshot', 'embed', 'codes', 'evaluate', 'localize', 'ingest'])
               [CASE WHEN i %% 25 < 2 THEN 1 + i %% 25 ELSE 3 + i %% 6 END] AS kind,
             CASE WHEN i <= 5 THEN 'running' WHEN i <= 20 THEN 'queued' WHEN i %% 17 = 0 THEN 'failed'
                  WHEN i %% 29 = 0 THEN 'cancelled' WHEN i %% 41 = 0 THEN 'parked' ELSE 'succeeded' END
               AS state
      FROM generate_series(1, %(jobs)s) AS i) AS j
"""
PARTS = """
INSERT INTO job (kind, queue, state, specification, parent_job_id, progress_done, progress_total, attempts,
                 submitted_at, started_at, finished_at)
SELECT 'embed', 'gpu', p.state, '{"kind": "embed", "model": "street"}', p.job_id, 500, 1000, 1,
       p.submitted_at, p.submitted_at + i * interval '20 s',
       CASE WHEN p.finished_at IS NOT NULL THEN p.submitted_at + (i + 1) * interval '20 s' END
FROM job p CROSS JOIN generate_series(1, %(stages)s) AS i WHERE p.kind = 'pipeline'
"""
# Every stage waits for the one before it.
CHAIN = """
UPDATE job j SET depends_on = ARRAY[b.before]
FROM (SELECT job_id, lag(job_id) OVER (PARTITION BY parent_job_id ORDER BY started_at) AS before
      FROM job WHERE parent_job_id IS NOT NULL) AS b
WHERE b.job_id = j.job_id AND b.before IS NOT NULL
"""
EVENTS = """
INSERT INTO job_event (job_id, at, kind, message, data)
SELECT job_id, submitted_at + i * interval '10 s', (ARRAY['state', 'log', 'progress'])[1 + i % 3],
       'step ' || i || ' is done', jsonb_build_object('level', 'info', 'photos', i * 50)
FROM job CROSS JOIN generate_series(1, 40) AS i WHERE state <> 'queued'
"""
EPOCH_EVENTS = """
INSERT INTO job_event (job_id, at, kind, message)
SELECT job_id, submitted_at + i * interval '30 s', 'progress',
       format('epoch %%s of %%s: GP %%s GA %%s AP %%s', i, %(epochs)s::int, round(3 * exp(-i / 50.0), 3),
              round(2.5 * exp(-i / 70.0), 3), round(2 * exp(-i / 60.0), 3))
FROM job CROSS JOIN generate_series(1, %(epochs)s) AS i WHERE kind = 'train' AND state <> 'queued'
"""
WORKERS = """
INSERT INTO worker (name, queues, device, software_version, seen_at)
SELECT 'worker' || i || '@host:' || i, ARRAY[(ARRAY['cpu', 'gpu', 'interactive'])[i]], 'cpu', '0.1.0',
       now() + interval '1 day' FROM generate_series(1, 3) AS i
"""


def fill(conn: Connection, jobs: int) -> None:
    """Store jobs, their parts and logs, and three workers; the caller commits."""
    conn.execute(JOBS, {"jobs": jobs})
    conn.execute(PARTS, {"stages": STAGES})
    conn.execute(CHAIN)
    conn.execute(EVENTS)
    conn.execute(EPOCH_EVENTS, {"epochs": EPOCHS})
    conn.execute(WORKERS)
