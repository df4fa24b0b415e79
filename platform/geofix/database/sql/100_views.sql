-- Views for analysts. Columns may be added at the end; anything else is a breaking change.

CREATE OR REPLACE VIEW geofix.photo AS
SELECT p.photo_id, d.name AS dataset, p.source_key, p.uri, s.key AS sequence, p.captured_at, p.heading_deg,
       p.gps_accuracy_m, p.s2_id, c.code AS country_code, c.name AS country, a.code AS admin1_code,
       a.name AS admin1, p.width, p.height, p.author, coalesce(p.licence, d.licence) AS licence, d.attribution, p.geom
FROM geofix.photo_record p
JOIN geofix.dataset d USING (dataset_id)
LEFT JOIN geofix.sequence s USING (sequence_id)
LEFT JOIN geofix.photo_region pc ON pc.photo_id = p.photo_id AND pc.level = 'country'
LEFT JOIN geofix.region c ON c.region_id = pc.region_id
LEFT JOIN geofix.photo_region pa ON pa.photo_id = p.photo_id AND pa.level = 'admin1'
LEFT JOIN geofix.region a ON a.region_id = pa.region_id;

CREATE OR REPLACE VIEW geofix.cell AS
SELECT level, s2_id, geofix.s2_token(s2_id) AS s2_token, photos, first_captured_at, last_captured_at, aerial_tiles,
       geofix.s2_center(s2_id) AS center, geofix.s2_polygon(s2_id) AS geom
FROM geofix.grid_cell;

CREATE OR REPLACE VIEW geofix.prediction_top1 AS
SELECT e.evaluation_id, e.name AS evaluation, e.localizer, e.split, ep.photo_id, p.source_key, p.captured_at,
       p.s2_id AS true_s2_id, r.s2_id, r.score, r.probability, r.error_m, ep.nearest_training_m,
       ep.training_photos_in_cell, p.geom AS true_geom, r.geom AS geom,
       public.ST_MakeLine(p.geom, r.geom) AS error_geom
FROM geofix.evaluation e
JOIN geofix.evaluation_photo ep USING (evaluation_id)
JOIN geofix.photo_record p ON p.photo_id = ep.photo_id
LEFT JOIN geofix.prediction r
  ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1
WHERE NOT e.config ? 'in_the_making';

CREATE OR REPLACE VIEW geofix.evaluation_summary AS
SELECT e.evaluation_id, e.name AS evaluation, e.localizer, e.split, e.level, m.name AS model, c.name AS code_set, e.n,
       (e.metrics #>> '{recall,1,50}')::float8 AS recall_50m_percent,
       (e.metrics #>> '{recall,1,100}')::float8 AS recall_100m_percent,
       (e.metrics #>> '{recall,1,200}')::float8 AS recall_200m_percent,
       (e.metrics #>> '{recall,1,1000}')::float8 AS recall_1000m_percent,
       (e.metrics #>> '{median_m}')::float8 AS median_m,
       (e.metrics #>> '{mean_km}')::float8 AS mean_km,
       (e.metrics #>> '{geoscore}')::float8 AS geoscore,
       (e.metrics #>> '{oracle,recall,1,100}')::float8 AS oracle_100m_percent,
       e.search_method, e.radius_km, e.comparison, e.missing_policy, e.software_version, e.created_at,
       (e.metrics #>> '{accuracy_km,1}')::float8 AS accuracy_1km_percent,
       (e.metrics #>> '{accuracy_km,25}')::float8 AS accuracy_25km_percent,
       (e.metrics #>> '{accuracy_km,200}')::float8 AS accuracy_200km_percent,
       (e.metrics #>> '{accuracy_km,750}')::float8 AS accuracy_750km_percent,
       (e.metrics #>> '{accuracy_km,2500}')::float8 AS accuracy_2500km_percent
FROM geofix.evaluation e
LEFT JOIN geofix.model m USING (model_id)
LEFT JOIN geofix.code_set c USING (code_set_id)
WHERE NOT e.config ? 'in_the_making';

CREATE OR REPLACE VIEW geofix.job_status AS
SELECT job_id, kind, state, queue, progress_done, progress_total, progress_unit, progress_message,
       CASE WHEN progress_total > 0 THEN round(100.0 * progress_done / progress_total, 1) END AS percent,
       attempts, submitted_by, submitted_at, started_at, finished_at,
       coalesce(finished_at, now()) - started_at AS duration, lease_owner, error, parent_job_id,
       CASE WHEN state = 'running' AND progress_done > 0 AND progress_total >= progress_done THEN
         (now() - coalesce(claimed_at, started_at)) * ((progress_total - progress_done) / progress_done::float8)
       END AS eta,
       is_container, chunk, not_before
FROM geofix.job;

-- A worker writes its row every GEOFIX_JOB_PRESENCE_S (15 s); whoever was silent for six of them is gone or hangs.
CREATE OR REPLACE VIEW geofix.worker_status AS
SELECT w.name, split_part(split_part(w.name, '@', 2), ':', 1) AS host, w.queues, w.device, w.software_version,
       w.started_at, w.seen_at, clock_timestamp() - w.seen_at AS silent,
       abs(extract(epoch FROM clock_timestamp() - w.seen_at)) < 90 AS alive,
       w.job_id, j.kind AS job_kind, j.progress_done, j.progress_total, j.progress_message
FROM geofix.worker w LEFT JOIN geofix.job j ON j.job_id = w.job_id;

CREATE OR REPLACE VIEW geofix.queue_status AS
SELECT q.queue,
       count(j.job_id) FILTER (WHERE j.state IN ('queued', 'lost') AND ready.ready) AS waiting,
       count(j.job_id) FILTER (WHERE j.state = 'queued' AND NOT ready.ready) AS blocked,
       count(j.job_id) FILTER (WHERE j.state = 'running') AS running,
       count(j.job_id) FILTER (WHERE j.state = 'paused') AS paused,
       max(clock_timestamp() - greatest(j.submitted_at, j.not_before))
         FILTER (WHERE j.state IN ('queued', 'lost') AND ready.ready) AS oldest_waits,
       (SELECT count(*) FROM geofix.worker_status w WHERE w.alive AND q.queue = ANY (w.queues)) AS workers
FROM (VALUES ('interactive'), ('cpu'), ('gpu')) AS q (queue)
LEFT JOIN geofix.job j ON j.queue = q.queue AND NOT j.is_container AND j.state IN ('queued', 'lost', 'running', 'paused')
LEFT JOIN LATERAL (
  SELECT coalesce(j.not_before <= clock_timestamp(), true) AND (j.depends_on = '{}' OR NOT EXISTS (
           SELECT 1 FROM unnest(j.depends_on) AS d (job_id) LEFT JOIN geofix.job p USING (job_id)
           WHERE p.state IS DISTINCT FROM 'succeeded')) AS ready
) ready ON true
GROUP BY q.queue;
