-- FIND
SELECT * FROM geofix.code_set WHERE name = %(name)s

-- LIST
SELECT s.*, m.name AS model,
       coalesce(nullif(pg_total_relation_size(to_regclass('geofix_leaf.cell_code_' || s.code_set_id)), 0), s.bytes) AS total_bytes,
       (SELECT recall FROM geofix.recall_check r WHERE r.code_set_id = s.code_set_id ORDER BY checked_at DESC LIMIT 1) AS recall
FROM geofix.code_set s JOIN geofix.model m USING (model_id) ORDER BY s.created_at

-- INSERT
INSERT INTO geofix.code_set (name, model_id, snapshot_id, recipe, level, dimension, scale, kappa, temperature, block_level,
                             calibration, config)
VALUES (%(name)s, %(model_id)s, %(snapshot_id)s, %(recipe)s, %(level)s, %(dimension)s, %(scale)s, %(kappa)s,
        %(temperature)s, %(block_level)s, %(calibration)s, %(config)s)
RETURNING code_set_id

-- FINISH
UPDATE geofix.code_set s SET state = 'ready', ready_at = now(), cells = c.cells, with_prototype = c.with_prototype,
       with_aerial = c.with_aerial, bytes = pg_total_relation_size(to_regclass(%(leaf)s))
FROM (SELECT count(*) AS cells, count(*) FILTER (WHERE has_prototype) AS with_prototype,
             count(*) FILTER (WHERE has_aerial) AS with_aerial
      FROM geofix.cell_code WHERE code_set_id = %(code_set_id)s) AS c
WHERE s.code_set_id = %(code_set_id)s
RETURNING s.cells, s.with_prototype, s.with_aerial, s.bytes

-- BLOCKS
INSERT INTO geofix.cell_block (code_set_id, s2_id, lo, hi, cells, geom)
SELECT %(code_set_id)s, b.s2_id, r.lo, r.hi, b.cells, geofix.s2_polygon(b.s2_id)
FROM (SELECT geofix.s2_parent(s2_id, %(block_level)s) AS s2_id, count(*) AS cells
      FROM geofix.cell_code WHERE code_set_id = %(code_set_id)s GROUP BY 1) AS b
CROSS JOIN LATERAL geofix.s2_range(b.s2_id) AS r
ORDER BY b.s2_id

-- SET_STATE
UPDATE geofix.code_set SET state = %(state)s, stale_reason = %(reason)s WHERE code_set_id = %(code_set_id)s

-- SET_INDEX
UPDATE geofix.code_set SET index_parameters = %(parameters)s, bytes = %(bytes)s WHERE code_set_id = %(code_set_id)s

-- DEAD_ROWS
SELECT pg_stat_get_dead_tuples(to_regclass(%(leaf)s))

-- SET_TEMPERATURE
UPDATE geofix.code_set SET temperature = %(temperature)s, calibration = %(calibration)s WHERE code_set_id = %(code_set_id)s

-- DELETE
DELETE FROM geofix.code_set WHERE code_set_id = %(code_set_id)s

-- RETIRE
UPDATE geofix.code_set SET name = format('%%s (replaced %%s)', name, code_set_id), state = 'dropping',
       stale_reason = 'replaced by a newer build'
WHERE name = %(name)s RETURNING name

-- RETIRED
SELECT name FROM geofix.code_set
WHERE state = 'dropping' AND starts_with(name, %(name)s || ' (replaced ') ORDER BY code_set_id

-- RENAME
UPDATE geofix.code_set SET name = %(name)s WHERE code_set_id = %(code_set_id)s

-- INSERT_RECALL
INSERT INTO geofix.recall_check (code_set_id, k, queries, ef_search, scope, cells_in_scope, recall)
VALUES (%(code_set_id)s, %(k)s, %(queries)s, %(ef_search)s, %(scope)s, %(cells_in_scope)s, %(recall)s)

-- READ
SELECT s2_id, code FROM geofix.cell_code WHERE code_set_id = {} ORDER BY s2_id

-- PAGE
SELECT s2_id, code FROM geofix.cell_code
WHERE code_set_id = {code_set_id} AND s2_id > {last} ORDER BY s2_id LIMIT {rows}

-- STAMPS
SELECT code_set_id, to_char(ready_at AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') FROM geofix.code_set WHERE ready_at IS NOT NULL

-- SEARCH
SELECT s2_id, score, method, cells_in_scope FROM geofix.search_cells(%(query)s, %(k)s, %(code_set)s, NULL, %(exact_below)s)

-- HNSW
CREATE INDEX {index} ON {leaf} USING hnsw ((code::public.halfvec({dimension})) public.halfvec_ip_ops) WITH (m = {m}, ef_construction = {ef})

-- SAMPLE
SELECT e.photo_id, e.embedding FROM geofix.photo_embedding e
WHERE e.model_id = {} ORDER BY hashint8(e.photo_id) LIMIT {}

-- build_hnsw()
SELECT set_config('maintenance_work_mem', %s, true)

-- build_hnsw()
SELECT set_config('max_parallel_maintenance_workers', %s, true)

-- build_hnsw()
DROP INDEX IF EXISTS {}
