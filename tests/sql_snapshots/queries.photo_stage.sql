-- CREATE_STAGE
CREATE TEMP TABLE IF NOT EXISTS photo_stage (
    ord int8 NOT NULL, source_key text NOT NULL, uri text, sha256 bytea, file_bytes int8, file_mtime_ns int8,
    width int4, height int4, lon float8 NOT NULL, lat float8 NOT NULL, s2_id int8 NOT NULL,
    gps_accuracy_m float4, heading_deg float4, captured_at timestamptz, sequence_key text,
    author text, licence text, extra jsonb
);
CREATE TEMP TABLE IF NOT EXISTS photo_seen (source_key text PRIMARY KEY);
TRUNCATE photo_stage, photo_seen

-- SEEN
SELECT source_key FROM photo_seen WHERE source_key = ANY(%(keys)s)

-- MARK_SEEN
INSERT INTO photo_seen SELECT unnest(%(keys)s::text[]) ON CONFLICT DO NOTHING

-- ANALYZE_STAGE
ANALYZE photo_stage

-- TAKE_REPEATED
DELETE FROM photo_stage s
USING (
    SELECT f.ord, row_number() OVER (PARTITION BY f.source_key ORDER BY f.ord) AS turn, e.source_key AS earlier
    FROM photo_stage f LEFT JOIN photo_seen e ON e.source_key = f.source_key
) t
WHERE s.ord = t.ord AND (t.turn > 1 OR t.earlier IS NOT NULL)
RETURNING s.source_key, s.ord

-- MARK_STAGED
INSERT INTO photo_seen SELECT source_key FROM photo_stage

-- FIND_REPLACED
SELECT p.photo_id FROM photo_record p JOIN photo_stage s USING (source_key)
WHERE p.dataset_id = %(dataset_id)s AND p.sha256 <> s.sha256

-- DELETE_PHOTOS
DELETE FROM photo_record WHERE photo_id = ANY(%(ids)s)

-- TAKE_TWINS
DELETE FROM photo_stage s USING photo_stage f
WHERE f.sha256 = s.sha256 AND f.ord < s.ord
  AND NOT EXISTS (SELECT FROM photo_stage e WHERE e.sha256 = s.sha256 AND e.ord < f.ord)
RETURNING s.source_key, f.source_key

-- FIND_TWINS
SELECT s.source_key, p.source_key, p.uri, p.photo_id
FROM photo_stage s JOIN photo_record p ON p.dataset_id = %(dataset_id)s AND p.sha256 = s.sha256
WHERE p.source_key <> s.source_key

-- RENAME
UPDATE photo_record SET source_key = %(source_key)s WHERE photo_id = %(photo_id)s

-- COUNT_ASSUMING_UTC
SELECT count(*) FROM photo_stage WHERE extra ? 'time_assumed_utc'

-- DELETE_STAGED
DELETE FROM photo_stage WHERE source_key = ANY(%(keys)s)

-- ADD_SEQUENCES
INSERT INTO sequence (dataset_id, key)
SELECT DISTINCT %(dataset_id)s::int8, sequence_key FROM photo_stage WHERE sequence_key IS NOT NULL
ON CONFLICT DO NOTHING

-- DELETE_MOVED_REGIONS
DELETE FROM photo_region r USING photo_record p, photo_stage s
WHERE r.photo_id = p.photo_id AND p.dataset_id = %(dataset_id)s AND p.source_key = s.source_key
  AND (ST_X(p.geom), ST_Y(p.geom)) IS DISTINCT FROM (s.lon, s.lat)

-- MERGE
INSERT INTO photo_record AS p (
    dataset_id, sequence_id, source_key, uri, sha256, file_bytes, file_mtime_ns, width, height, s2_id,
    gps_accuracy_m, heading_deg, captured_at, author, licence, extra, geom)
SELECT %(dataset_id)s, q.sequence_id, s.source_key, s.uri, s.sha256, s.file_bytes, s.file_mtime_ns, s.width,
       s.height, s.s2_id, s.gps_accuracy_m, s.heading_deg, s.captured_at, s.author, s.licence, s.extra,
       ST_SetSRID(ST_MakePoint(s.lon, s.lat), 4326)
FROM photo_stage s
LEFT JOIN sequence q ON q.dataset_id = %(dataset_id)s AND q.key = s.sequence_key
ORDER BY s.ord
ON CONFLICT (dataset_id, source_key) DO UPDATE SET
    sequence_id = excluded.sequence_id, uri = excluded.uri, sha256 = excluded.sha256,
    file_bytes = excluded.file_bytes, file_mtime_ns = excluded.file_mtime_ns, width = excluded.width,
    height = excluded.height, s2_id = excluded.s2_id, gps_accuracy_m = excluded.gps_accuracy_m,
    heading_deg = excluded.heading_deg, captured_at = excluded.captured_at, author = excluded.author,
    licence = excluded.licence, extra = excluded.extra, geom = excluded.geom, ingested_at = now()
WHERE (p.sequence_id, p.uri, p.sha256, p.file_bytes, p.file_mtime_ns, p.width, p.height, p.s2_id,
       p.gps_accuracy_m, p.heading_deg, p.captured_at, p.author, p.licence, p.extra)
      IS DISTINCT FROM
      (excluded.sequence_id, excluded.uri, excluded.sha256, excluded.file_bytes, excluded.file_mtime_ns,
       excluded.width, excluded.height, excluded.s2_id, excluded.gps_accuracy_m, excluded.heading_deg,
       excluded.captured_at, excluded.author, excluded.licence, excluded.extra)
   OR (ST_X(p.geom), ST_Y(p.geom)) IS DISTINCT FROM (ST_X(excluded.geom), ST_Y(excluded.geom))
RETURNING p.xmax = 0

-- STALE_REJECTS
SELECT r.reject_id FROM reject r
WHERE r.dataset_id = %(dataset_id)s AND r.kind = 'photo'
  AND (r.source_key = ANY(%(keys)s) OR r.source_key IN (SELECT source_key FROM photo_stage))
  AND NOT EXISTS (
    SELECT FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS n(key, reason, detail)
    WHERE (n.key, n.reason, n.detail) = (r.source_key, r.reason, r.detail))

-- DELETE_REJECTS
DELETE FROM reject WHERE reject_id = ANY(%(ids)s)

-- ADD_REJECTS
INSERT INTO reject (dataset_id, kind, source_key, reason, detail)
SELECT %(dataset_id)s, 'photo', key, reason, detail
FROM unnest(%(keys)s::text[], %(reasons)s::text[], %(details)s::text[]) AS r(key, reason, detail)
ON CONFLICT DO NOTHING

-- EMPTY_STAGE
TRUNCATE photo_stage
