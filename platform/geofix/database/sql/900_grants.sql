-- Who may do what, in one place. Three roles: the owner (this session), geofix_writer (workers), geofix_reader
-- (analysts and the dashboard). The roles themselves are made with the server, since only a superuser can.

REVOKE ALL ON SCHEMA geofix, geofix_leaf FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA geofix FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

GRANT USAGE ON SCHEMA geofix, geofix_leaf TO geofix_reader, geofix_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA geofix, geofix_leaf TO geofix_reader, geofix_writer;
GRANT EXECUTE ON ALL ROUTINES IN SCHEMA geofix TO geofix_reader, geofix_writer;
ALTER DEFAULT PRIVILEGES IN SCHEMA geofix_leaf GRANT SELECT ON TABLES TO geofix_reader, geofix_writer;

-- Who asked what, and what was asked, is not for every analyst.
REVOKE SELECT ON geofix.audit, geofix.query FROM geofix_reader;

-- Workers write results and job state; they neither change the schema nor delete sources.
GRANT INSERT, UPDATE ON geofix.job, geofix.worker, geofix.query, geofix.evaluation, geofix.evaluation_photo,
  geofix.prediction, geofix.model, geofix.snapshot, geofix.snapshot_photo, geofix.recall_check, geofix.photo_record,
  geofix.photo_region, geofix.sequence, geofix.dataset, geofix.aerial_raster, geofix.aerial_tile, geofix.grid_cell,
  geofix.region, geofix.region_part, geofix.code_set, geofix.cell_block, geofix.stage_run TO geofix_writer;
GRANT INSERT ON geofix.job_event, geofix.audit, geofix.reject TO geofix_writer;
GRANT DELETE ON geofix.prediction, geofix.evaluation_photo, geofix.snapshot_photo, geofix.region_part, geofix.grid_cell,
  geofix.photo_region, geofix.cell_block, geofix.worker TO geofix_writer;
