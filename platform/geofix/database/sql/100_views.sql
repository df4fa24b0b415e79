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
  ON r.evaluation_id = ep.evaluation_id AND r.photo_id = ep.photo_id AND r.rank = 1;

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
LEFT JOIN geofix.code_set c USING (code_set_id);

CREATE OR REPLACE VIEW geofix.job_status AS
SELECT job_id, kind, state, queue, progress_done, progress_total, progress_unit, progress_message,
       CASE WHEN progress_total > 0 THEN round(100.0 * progress_done / progress_total, 1) END AS percent,
       attempts, submitted_by, submitted_at, started_at, finished_at,
       coalesce(finished_at, now()) - started_at AS duration, lease_owner, error, parent_job_id
FROM geofix.job;
