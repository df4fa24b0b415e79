-- RECORD
INSERT INTO geofix.sql_file (name, sha256) VALUES (%(name)s, %(sha256)s)
ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()

-- FORGET
DELETE FROM geofix.sql_file WHERE NOT name = ANY (%(names)s)

-- APPLIED
SELECT name, sha256 FROM geofix.sql_file ORDER BY name
