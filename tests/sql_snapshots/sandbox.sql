-- SEARCH_PATH
SET search_path = geofix, public

-- TYPE_NAMES
SELECT u.n, t.typname FROM unnest(%(oids)s::oid[]) WITH ORDINALITY AS u(oid, n) JOIN pg_catalog.pg_type t ON t.oid = u.oid
ORDER BY u.n
