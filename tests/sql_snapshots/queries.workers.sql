-- EXISTS
SELECT to_regclass('geofix.worker') IS NOT NULL

-- WORKERS
SELECT name, queues, device, software_version, job_id, started_at, seen_at,
       seen_at > now() - make_interval(secs => %(alive_s)s) AS alive
FROM geofix.worker ORDER BY name
