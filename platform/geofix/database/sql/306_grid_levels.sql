-- Cells of a level hold what photos and aerial tiles were counted to when they were refreshed, and how many changes of
-- these the log held then. Each statement that changes such rows adds to the log by the triggers below, so cells fit as
-- long as that number is the same (see 305_region_summaries.sql: nothing is locked here either).

CREATE OR REPLACE FUNCTION geofix.note_cells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM changed) THEN INSERT INTO geofix.cell_change DEFAULT VALUES; END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION geofix.note_emptied_cells() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO geofix.cell_change DEFAULT VALUES;
  RETURN NULL;
END $$;

-- Their plans are made for the rows of the first statement of a session, often none: for many, nested loops over them would
-- never end.
CREATE OR REPLACE FUNCTION geofix.note_moved_photos() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
  IF EXISTS (SELECT FROM changed AS c JOIN earlier AS e USING (photo_id)
             WHERE (c.s2_id, c.captured_at) IS DISTINCT FROM (e.s2_id, e.captured_at)) THEN
    INSERT INTO geofix.cell_change DEFAULT VALUES;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION geofix.note_moved_tiles() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
  IF EXISTS (SELECT FROM changed AS c JOIN earlier AS e USING (aerial_tile_id)
             WHERE (c.s2_id, c.level, c.captured_at) IS DISTINCT FROM (e.s2_id, e.level, e.captured_at)) THEN
    INSERT INTO geofix.cell_change DEFAULT VALUES;
  END IF;
  RETURN NULL;
END $$;

-- Made once: making a trigger anew waits for everybody who writes into its table.
DO $$
DECLARE
  t record;
BEGIN
  FOR t IN
    SELECT kind.*, place.target, coalesce(kind.action, place.moved) AS does
    FROM (VALUES
      ('note_cells_insert', 'INSERT', 'REFERENCING NEW TABLE AS changed', 'note_cells'),
      ('note_cells_update', 'UPDATE', 'REFERENCING OLD TABLE AS earlier NEW TABLE AS changed', NULL),
      ('note_cells_delete', 'DELETE', 'REFERENCING OLD TABLE AS changed', 'note_cells'),
      ('note_cells_truncate', 'TRUNCATE', '', 'note_emptied_cells')) AS kind (name, event, rows, action)
    CROSS JOIN (VALUES ('photo_record', 'note_moved_photos'), ('aerial_tile', 'note_moved_tiles')) AS place (target, moved)
  LOOP
    IF NOT EXISTS (SELECT FROM pg_trigger g
                   WHERE g.tgrelid = format('geofix.%I', t.target)::regclass AND g.tgname = t.name) THEN
      EXECUTE format('CREATE TRIGGER %I AFTER %s ON geofix.%I %s FOR EACH STATEMENT EXECUTE FUNCTION geofix.%I()',
                     t.name, t.event, t.target, t.rows, t.does);
    END IF;
  END LOOP;
END $$;

-- Levels whose cells say what counting photos and tiles would say now.
CREATE OR REPLACE VIEW geofix.fitting_grid AS
SELECT g.* FROM geofix.grid_level g WHERE g.changes = (SELECT count(*) FROM geofix.cell_change);
