-- LOCK
SELECT pg_advisory_xact_lock(hashtext('geofix.migrate'))

-- CREATE_SCHEMAS
CREATE SCHEMA IF NOT EXISTS geofix

-- EXTENSIONS
SELECT extname FROM pg_extension WHERE extname IN ('postgis', 'vector')

-- DROP_ALL
DROP SCHEMA IF EXISTS geofix_leaf CASCADE; DROP SCHEMA IF EXISTS geofix CASCADE

-- DROP_LEAVES_AND_FUNCTIONS
DO $$
DECLARE item record;
BEGIN
  DROP SCHEMA IF EXISTS geofix_leaf CASCADE;
  FOR item IN SELECT unnest(ARRAY(SELECT c.oid::regclass::text FROM pg_class c
              WHERE c.relnamespace = 'geofix'::regnamespace AND c.relkind = 'v')) AS name LOOP
    EXECUTE format('DROP VIEW IF EXISTS %s CASCADE', item.name);
  END LOOP;
  FOR item IN SELECT unnest(ARRAY(SELECT p.oid::regprocedure::text FROM pg_proc p
              WHERE p.pronamespace = 'geofix'::regnamespace)) AS name LOOP
    EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', item.name);
  END LOOP;
END $$
