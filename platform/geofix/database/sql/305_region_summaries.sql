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

-- Where a photo is, and how well that is known. Its plan is made for the rows of the first statement of a session, often
-- none: for many, nested loops over them would never end.
CREATE OR REPLACE FUNCTION geofix.note_photos() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
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

-- Made once: making a trigger anew waits for everybody who writes into its table.
DO $$
DECLARE
  t record;
BEGIN
  FOR t IN
    SELECT v.* FROM (VALUES
      ('note_insert', 'INSERT', 'REFERENCING NEW TABLE AS changed'),
      ('note_update', 'UPDATE', 'REFERENCING NEW TABLE AS changed'),
      ('note_update_before', 'UPDATE', 'REFERENCING OLD TABLE AS changed'),
      ('note_delete', 'DELETE', 'REFERENCING OLD TABLE AS changed'),
      ('note_truncate', 'TRUNCATE', '')) AS kind (name, event, rows)
    CROSS JOIN (VALUES ('evaluation_photo', 'note_answers'), ('prediction', 'note_answers'), ('photo_region', 'note_regions'))
      AS place (target, action)
    CROSS JOIN LATERAL (VALUES (kind.name, kind.event, kind.rows, place.target,
      CASE WHEN kind.event = 'TRUNCATE' THEN 'note_truncation' ELSE place.action END)) AS v (name, event, rows, target, action)
    UNION ALL
    SELECT 'note_update', 'UPDATE', 'REFERENCING OLD TABLE AS earlier NEW TABLE AS changed', 'photo_record', 'note_photos'
  LOOP
    IF NOT EXISTS (SELECT FROM pg_trigger g
                   WHERE g.tgrelid = format('geofix.%I', t.target)::regclass AND g.tgname = t.name) THEN
      EXECUTE format('CREATE TRIGGER %I AFTER %s ON geofix.%I %s FOR EACH STATEMENT EXECUTE FUNCTION geofix.%I()',
                     t.name, t.event, t.target, t.rows, t.action);
    END IF;
  END LOOP;
END $$;

-- Summaries that say what counting from the rows would say now.
CREATE OR REPLACE VIEW geofix.fitting_summary AS
SELECT e.name AS evaluation, s.*
FROM geofix.region_summary s
JOIN geofix.evaluation e USING (evaluation_id)
WHERE (s.comparison, s.missing_policy) = (e.comparison, e.missing_policy)
  AND s.changes = geofix.accuracy_changes(s.evaluation_id, s.level, s.first_photo_id, s.last_photo_id);
