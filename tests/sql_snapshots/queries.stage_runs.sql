-- FIND
SELECT inputs_sha256, result, seconds FROM geofix.stage_run WHERE pipeline = %(pipeline)s AND stage = %(stage)s

-- STORE
INSERT INTO geofix.stage_run (pipeline, stage, inputs_sha256, result, seconds)
VALUES (%(pipeline)s, %(stage)s, %(inputs)s, %(result)s, %(seconds)s)
ON CONFLICT (pipeline, stage) DO UPDATE SET inputs_sha256 = excluded.inputs_sha256, result = excluded.result,
  seconds = excluded.seconds, finished_at = now()

-- FORGET
DELETE FROM geofix.stage_run WHERE pipeline = %(pipeline)s AND stage = ANY (%(stages)s)

-- EXISTS['dataset']
SELECT 1 FROM geofix.dataset WHERE name = %(name)s

-- EXISTS['model']
SELECT 1 FROM geofix.model WHERE name = %(name)s

-- EXISTS['model_id']
SELECT 1 FROM geofix.model WHERE model_id::text = %(name)s

-- EXISTS['snapshot']
SELECT 1 FROM geofix.snapshot WHERE sha256 = %(name)s

-- EXISTS['code_set']
SELECT 1 FROM geofix.code_set WHERE name = %(name)s AND state = 'ready'

-- EXISTS['evaluation']
SELECT 1 FROM geofix.evaluation WHERE name = %(name)s
