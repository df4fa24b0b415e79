-- EXISTS
SELECT to_regclass('geofix.worker') IS NOT NULL

-- WORKERS
SELECT name, queues, device, software_version, job_id, started_at, seen_at,
       abs(extract(epoch FROM clock_timestamp() - seen_at)) < %(alive_s)s AS alive
FROM geofix.worker ORDER BY name
