-- UPSERT_DATASET
INSERT INTO dataset (name, kind, licence, attribution, source_uri)
VALUES (%(name)s, 'photos', %(licence)s, %(attribution)s, %(source_uri)s)
ON CONFLICT (name) DO UPDATE SET
    licence = coalesce(excluded.licence, dataset.licence),
    attribution = coalesce(excluded.attribution, dataset.attribution),
    source_uri = coalesce(excluded.source_uri, dataset.source_uri)
RETURNING dataset_id, kind

-- LOCK_DATASET
SELECT pg_try_advisory_lock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))

-- UNLOCK_DATASET
SELECT pg_advisory_unlock(hashtextextended('geofix.ingest.photos', %(dataset_id)s))

-- KNOWN
SELECT p.source_key, p.file_bytes, p.file_mtime_ns, p.sha256, p.width, p.height, ST_X(p.geom), ST_Y(p.geom),
       p.gps_accuracy_m, p.heading_deg, p.captured_at, p.extra, s.key, p.author, p.licence
FROM photo_record p LEFT JOIN sequence s USING (sequence_id)
WHERE p.dataset_id = %(dataset_id)s AND p.source_key = ANY(%(keys)s)

-- COUNT_PHOTOS
SELECT count(*) FROM photo_record WHERE dataset_id = %(dataset_id)s
