-- MOVE
SELECT generation, target FROM geofix.shard_move WHERE code_set_id = %(code_set_id)s

-- INSERT_MOVE
INSERT INTO geofix.shard_move (code_set_id, generation, target)
VALUES (%(code_set_id)s, nextval('geofix.shard_generation'), %(target)s) RETURNING generation

-- DELETE_MOVE
DELETE FROM geofix.shard_move WHERE code_set_id = %(code_set_id)s

-- INSERT_PIECE
INSERT INTO geofix.shard_piece (code_set_id, generation, piece, shard_id, lo, hi, state)
VALUES (%(code_set_id)s, %(generation)s, %(piece)s, %(shard_id)s, %(lo)s, %(hi)s, 'filling')

-- PIECES
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p
WHERE (%(code_set_id)s::bigint IS NULL OR p.code_set_id = %(code_set_id)s)
  AND (%(shard_id)s::bigint IS NULL OR p.shard_id = %(shard_id)s) AND p.state = ANY (%(states)s)
ORDER BY p.code_set_id, p.generation, p.piece

-- GONE
SELECT DISTINCT code_set_id FROM geofix.shard_piece WHERE state = 'gone' ORDER BY 1

-- HOLD_GONE
SELECT p.code_set_id, p.generation, p.piece, p.shard_id, p.lo, p.hi, p.cells, p.checksum, p.bytes, p.state
FROM geofix.shard_piece p WHERE p.code_set_id = %(code_set_id)s AND p.state = 'gone'
ORDER BY p.generation, p.piece FOR UPDATE

-- NAMES_ON
SELECT coalesce(c.name, p.code_set_id::text) FROM geofix.shard_piece p LEFT JOIN geofix.code_set c USING (code_set_id)
WHERE p.shard_id = %(shard_id)s AND p.state = ANY (%(states)s) ORDER BY 1

-- MARK_GONE
UPDATE geofix.shard_piece p SET state = 'gone'
WHERE p.state <> 'gone'
  AND (NOT EXISTS (SELECT FROM geofix.code_set c WHERE c.code_set_id = p.code_set_id)
       OR (p.state = 'filling' AND NOT EXISTS (SELECT FROM geofix.shard_move m
             WHERE m.code_set_id = p.code_set_id AND m.generation = p.generation)))

-- DELETE_PIECE
DELETE FROM geofix.shard_piece
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s

-- DELETE_GONE_ON
DELETE FROM geofix.shard_piece WHERE shard_id = %(shard_id)s AND state = 'gone'
RETURNING code_set_id, generation, piece, shard_id, lo, hi, cells, checksum, bytes, state

-- MEASURED
UPDATE geofix.shard_piece SET cells = %(cells)s, checksum = %(checksum)s, bytes = %(bytes)s
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s

-- MEASURED_BYTES
UPDATE geofix.shard_piece SET bytes = %(bytes)s
WHERE code_set_id = %(code_set_id)s AND generation = %(generation)s AND piece = %(piece)s

-- IS_DISTRIBUTED
SELECT EXISTS (SELECT FROM geofix.shard_piece WHERE code_set_id = %(code_set_id)s AND state = 'live')

-- TRY_LOCK
SELECT pg_try_advisory_lock(hashtext('geofix.shard_move'), %(key)s)

-- LOCK_FOR_NOW
SELECT pg_advisory_xact_lock(hashtext('geofix.shard_move'), %(key)s)

-- UNLOCK
SELECT pg_advisory_unlock(hashtext('geofix.shard_move'), %(key)s)

-- NOTICE_DEATH
SELECT set_config('client_connection_check_interval', '1s', false)

-- SPLITS
SELECT percentile_disc(%(fractions)s::float8[]) WITHIN GROUP (ORDER BY s2_id) FROM geofix.cell_code
WHERE code_set_id = {code_set_id}

-- BATCH_END
SELECT max(s2_id), count(*) FROM (
  SELECT s2_id FROM geofix.cell_code WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {first} AND {hi}
  ORDER BY s2_id LIMIT {rows}) AS batch

-- SEND
COPY (SELECT code_set_id, s2_id, code, has_prototype, has_aerial FROM geofix.cell_code
      WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {first} AND {last} ORDER BY s2_id) TO STDOUT (FORMAT BINARY)

-- CHECKSUM
SELECT count(*), coalesce(sum(('x' || encode(substr(sha256(
  int8send(s2_id) || public.halfvec_send(code) || boolsend(has_prototype) || boolsend(has_aerial)), 1, 8), 'hex')
  )::bit(64)::bigint::numeric), 0)
FROM {table} WHERE code_set_id = {code_set_id} AND s2_id BETWEEN {lo} AND {hi}

-- CREATE_PIECE
CREATE TABLE IF NOT EXISTS {table} (
  code_set_id bigint NOT NULL, s2_id bigint NOT NULL, code public.halfvec NOT NULL,
  has_prototype boolean NOT NULL, has_aerial boolean NOT NULL,
  CONSTRAINT {parent_check} CHECK (code_set_id = {code_set_id}),
  CONSTRAINT {vector_check} CHECK (public.vector_dims(code) = {dimension}
    AND public.l2_norm(code) BETWEEN 0.99 AND 1.01),
  CONSTRAINT {range_check} CHECK (s2_id BETWEEN {lo} AND {hi})
) WITH (autovacuum_enabled = false)

-- CREATE_KEYS
CREATE OR REPLACE VIEW {keys} AS
SELECT code_set_id, s2_id, NULL::public.halfvec AS code, has_prototype, has_aerial FROM {table}

-- LAST
SELECT max(s2_id) FROM {table}

-- WAIT_FOR_EARLIER
SELECT pg_advisory_xact_lock(hashtext({name}))

-- RECEIVE
COPY {table} (code_set_id, s2_id, code, has_prototype, has_aerial) FROM STDIN (FORMAT BINARY)

-- ANALYZE
ANALYZE {table}

-- BYTES
SELECT coalesce(pg_total_relation_size(to_regclass(%(table)s)), 0)

-- EXISTS
SELECT to_regclass(%(table)s) IS NOT NULL

-- DROP_PIECE
DROP TABLE IF EXISTS {table} CASCADE

-- LOCK_TIMEOUT
SET LOCAL lock_timeout = '5s'
