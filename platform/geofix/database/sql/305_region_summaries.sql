-- A summary holds what accuracy by region was counted to when it was written, and how many changes of what it was counted
-- from the log held then. Each statement that changes such rows adds to the log by the triggers below, so a summary fits
-- as long as that number is the same. Nothing is locked: a change that was under way when a summary was written comes
-- into the log's sight when it is committed, together with its rows.

-- Changes that concern a summary: those of its evaluation, and those of regions of its level or of photos among its own.
CREATE OR REPLACE FUNCTION geofix.accuracy_changes(asked_id bigint, level text, first_id bigint, last_id bigint)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT (SELECT count(*) FROM geofix.accuracy_change c WHERE c.evaluation_id = asked_id)
       + (SELECT count(*) FROM geofix.accuracy_change c
          WHERE c.evaluation_id IS NULL AND coalesce(c.level = accuracy_changes.level, true)
            AND coalesce(c.first_photo_id <= last_id AND c.last_photo_id >= first_id, true))
$$;

-- Photos asked and their answers. Where the evaluation itself is being removed there is nothing to note.
CREATE OR REPLACE FUNCTION geofix.note_answers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO geofix.accuracy_change (evaluation_id)
  SELECT c.evaluation_id FROM (SELECT DISTINCT evaluation_id FROM changed) AS c
  JOIN geofix.evaluation e USING (evaluation_id);
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION geofix.note_regions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO geofix.accuracy_change (level, first_photo_id, last_photo_id)
  SELECT c.level, min(c.photo_id), max(c.photo_id) FROM changed AS c GROUP BY c.level;
  RETURN NULL;
END $$;

-- Where a photo is, and how well that is known.
CREATE OR REPLACE FUNCTION geofix.note_photos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO geofix.accuracy_change (first_photo_id, last_photo_id)
  SELECT min(c.photo_id), max(c.photo_id) FROM changed AS c JOIN earlier AS e USING (photo_id)
  WHERE c.gps_accuracy_m IS DISTINCT FROM e.gps_accuracy_m
     OR (public.ST_X(c.geom), public.ST_Y(c.geom)) IS DISTINCT FROM (public.ST_X(e.geom), public.ST_Y(e.geom))
  HAVING count(*) > 0;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION geofix.note_truncation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO geofix.accuracy_change DEFAULT VALUES;
  RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER note_insert AFTER INSERT ON geofix.evaluation_photo
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_update AFTER UPDATE ON geofix.evaluation_photo
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_update_before AFTER UPDATE ON geofix.evaluation_photo
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_delete AFTER DELETE ON geofix.evaluation_photo
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_truncate AFTER TRUNCATE ON geofix.evaluation_photo
  FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_truncation();

CREATE OR REPLACE TRIGGER note_insert AFTER INSERT ON geofix.prediction
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_update AFTER UPDATE ON geofix.prediction
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_update_before AFTER UPDATE ON geofix.prediction
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_delete AFTER DELETE ON geofix.prediction
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_answers();
CREATE OR REPLACE TRIGGER note_truncate AFTER TRUNCATE ON geofix.prediction
  FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_truncation();

CREATE OR REPLACE TRIGGER note_insert AFTER INSERT ON geofix.photo_region
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_regions();
CREATE OR REPLACE TRIGGER note_update AFTER UPDATE ON geofix.photo_region
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_regions();
CREATE OR REPLACE TRIGGER note_update_before AFTER UPDATE ON geofix.photo_region
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_regions();
CREATE OR REPLACE TRIGGER note_delete AFTER DELETE ON geofix.photo_region
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_regions();
CREATE OR REPLACE TRIGGER note_truncate AFTER TRUNCATE ON geofix.photo_region
  FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_truncation();

CREATE OR REPLACE TRIGGER note_update AFTER UPDATE ON geofix.photo_record
  REFERENCING OLD TABLE AS earlier NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION geofix.note_photos();

-- Summaries that say what counting from the rows would say now.
CREATE OR REPLACE VIEW geofix.fitting_summary AS
SELECT e.name AS evaluation, s.*
FROM geofix.region_summary s
JOIN geofix.evaluation e USING (evaluation_id)
WHERE (s.comparison, s.missing_policy) = (e.comparison, e.missing_policy)
  AND s.changes = geofix.accuracy_changes(s.evaluation_id, s.level, s.first_photo_id, s.last_photo_id);
