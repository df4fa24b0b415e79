-- HAS_REGIONS
SELECT EXISTS (SELECT FROM geofix.region WHERE level = %(level)s)

-- INSIDE
SELECT s.photo_id FROM geofix.snapshot_photo s
JOIN geofix.photo_region pr ON pr.photo_id = s.photo_id AND pr.level = %(level)s AND pr.distance_m = 0
JOIN geofix.region r USING (region_id)
WHERE s.snapshot_id = %(snapshot_id)s AND s.split = ANY (%(splits)s) AND lower(r.code) <> %(but)s

-- AROUND
SELECT (p.s2_id & -(1::bigint << 34)) | (1::bigint << 34) AS cell, count(*)
FROM geofix.snapshot_photo s JOIN geofix.photo_record p USING (photo_id)
WHERE s.snapshot_id = %(snapshot_id)s GROUP BY 1 ORDER BY 1
