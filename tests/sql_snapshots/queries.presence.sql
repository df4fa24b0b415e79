-- SEEN
INSERT INTO geofix.worker (name, queues, device, software_version, job_id)
VALUES (%(name)s, %(queues)s, %(device)s, %(software_version)s, %(job_id)s)
ON CONFLICT (name) DO UPDATE SET queues = excluded.queues, device = excluded.device, job_id = excluded.job_id,
    software_version = excluded.software_version, seen_at = clock_timestamp()

-- GONE
DELETE FROM geofix.worker WHERE name = %(name)s

-- FORGET
DELETE FROM geofix.worker WHERE seen_at < now() - interval '1 day'
