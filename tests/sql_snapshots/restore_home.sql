-- COME_HOME
DO $$
DECLARE item record;
BEGIN
  FOR item IN
    SELECT format('cell_code_%s_%s_%s', p.code_set_id, p.generation, p.piece) AS leaf, i.relname AS whole
    FROM geofix.shard_piece p
    JOIN pg_class i ON i.relkind = 'I' AND i.relnamespace = 'geofix_leaf'::regnamespace
    JOIN pg_index x ON x.indexrelid = i.oid AND x.indrelid = to_regclass('geofix_leaf.cell_code_' || p.code_set_id)
    WHERE p.state = 'live' AND p.shard_id IS NOT NULL
  LOOP
    EXECUTE format('CREATE INDEX %I ON geofix_leaf.%I (code_set_id, s2_id)', item.leaf || '_parent_key', item.leaf);
    EXECUTE format('ALTER INDEX geofix_leaf.%I ATTACH PARTITION geofix_leaf.%I', item.whole, item.leaf || '_parent_key');
  END LOOP;
END $$;

-- FORGET_SHARDS
DELETE FROM geofix.shard_move;
DELETE FROM geofix.shard_piece WHERE state <> 'live';
UPDATE geofix.shard_piece SET shard_id = NULL;
DELETE FROM geofix.shard

-- FRESH_INDEXES
UPDATE geofix.code_set SET index_parameters = index_parameters - 'dead_entries' - 'dead_before'
WHERE index_parameters ?| '{dead_entries,dead_before}'

-- AT_HOME
SELECT DISTINCT c.name FROM geofix.shard_piece p JOIN geofix.code_set c USING (code_set_id)
WHERE p.state = 'live' AND c.state IN ('ready', 'stale') ORDER BY 1

-- restore_home()
CREATE TABLE \1 (\n\2\n);
