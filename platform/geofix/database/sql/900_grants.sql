-- Who may do what, in one place. Three roles: the owner (this session), geofix_writer (workers), geofix_reader
-- (analysts and the dashboard). The roles themselves are made with the server, since only a superuser can; so are
-- large objects and logical messages taken from PUBLIC (embedded/bootstrap.py, docker/initdb).
-- Everything is taken away first: what is not granted below is not allowed, whatever was granted before.

DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, geofix_reader, geofix_writer', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO geofix_reader, geofix_writer', current_database());
  -- Workers stage rows in temporary tables; an analyst could fill the disk with them.
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO geofix_writer', current_database());
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

REVOKE ALL ON SCHEMA geofix, geofix_leaf FROM PUBLIC, geofix_reader, geofix_writer;
REVOKE ALL ON ALL TABLES IN SCHEMA geofix, geofix_leaf FROM PUBLIC, geofix_reader, geofix_writer;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA geofix, geofix_leaf FROM PUBLIC, geofix_reader, geofix_writer;
REVOKE ALL ON ALL ROUTINES IN SCHEMA geofix FROM PUBLIC, geofix_reader, geofix_writer;
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
  geofix.region, geofix.region_part, geofix.reject, geofix.code_set, geofix.cell_block, geofix.stage_run,
  geofix.partition, geofix.partition_class, geofix.partition_cell, geofix.region_summary,
  geofix.region_accuracy, geofix.snapshot_split, geofix.grid_level TO geofix_writer;
GRANT INSERT ON geofix.job_event, geofix.audit, geofix.accuracy_change, geofix.cell_change TO geofix_writer;
GRANT DELETE ON geofix.prediction, geofix.evaluation_photo, geofix.evaluation, geofix.snapshot_photo,
  geofix.snapshot_split, geofix.region_part, geofix.grid_cell, geofix.photo_region, geofix.reject, geofix.cell_block, geofix.worker,
  geofix.stage_run, geofix.partition, geofix.partition_class, geofix.partition_cell, geofix.region_accuracy
  TO geofix_writer;
-- Embeddings are added to leaves that the owner made when the model was registered.
GRANT INSERT ON ALL TABLES IN SCHEMA geofix_leaf TO geofix_writer;
ALTER DEFAULT PRIVILEGES IN SCHEMA geofix_leaf GRANT INSERT ON TABLES TO geofix_writer;
