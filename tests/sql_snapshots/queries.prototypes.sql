-- LEVEL
SELECT geofix.s2_level(s2_id) FROM geofix.prototype WHERE model_id = %(model_id)s LIMIT 1

-- IDS
SELECT s2_id, photos FROM geofix.prototype WHERE model_id = {model_id} ORDER BY s2_id

-- READ
SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} ORDER BY s2_id

-- READ_SOME
SELECT s2_id, embedding FROM geofix.prototype WHERE model_id = {model_id} AND s2_id = ANY ({ids}) ORDER BY s2_id

-- SNAPSHOT_OF
SELECT snapshot_id FROM geofix.snapshot WHERE sha256 = %(sha256)s

-- LINK_SNAPSHOT
UPDATE geofix.model SET snapshot_id = %(snapshot_id)s WHERE model_id = %(model_id)s AND snapshot_id IS NULL
