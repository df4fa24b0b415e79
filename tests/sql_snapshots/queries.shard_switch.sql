-- CREATE_FOREIGN
CREATE FOREIGN TABLE IF NOT EXISTS {leaf} (
  code_set_id bigint NOT NULL, s2_id bigint NOT NULL, code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL, has_aerial boolean NOT NULL
) SERVER {server} OPTIONS (schema_name 'geofix_shard', table_name {keys})

-- POINT_AT
ALTER FOREIGN TABLE {leaf} OPTIONS (SET table_name {name})

-- COUNT
SELECT count(*) FROM {leaf}

-- DROP_FOREIGN
DROP FOREIGN TABLE IF EXISTS {leaf}

-- HOLD
SELECT state, cells FROM geofix.code_set WHERE code_set_id = %(code_set_id)s FOR NO KEY UPDATE

-- PREPARED
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p
WHERE p.code_set_id = %(code_set_id)s AND p.generation = %(generation)s AND p.state = 'filling' ORDER BY p.lo FOR UPDATE

-- DETACH
ALTER TABLE geofix.cell_code DETACH PARTITION {whole}

-- DROP_WHOLE
DROP TABLE {whole}

-- CREATE_WHOLE
CREATE TABLE {whole} (LIKE geofix.cell_code INCLUDING DEFAULTS) PARTITION BY RANGE (s2_id)

-- ATTACH_PIECE
ALTER TABLE {whole} ATTACH PARTITION {leaf} FOR VALUES FROM ({start}) TO ({stop})

-- RENAME_TABLE
ALTER TABLE {leaf} RENAME TO {name}

-- DROP_RANGE_CHECK
ALTER TABLE {leaf} DROP CONSTRAINT {range_check}

-- OLD_GONE
UPDATE geofix.shard_piece SET state = 'gone'
WHERE code_set_id = %(code_set_id)s AND generation <> %(generation)s

-- NEW_LIVE
UPDATE geofix.shard_piece SET state = 'live' WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s

-- SET_BYTES
UPDATE geofix.code_set SET bytes = %(bytes)s WHERE code_set_id = %(code_set_id)s
