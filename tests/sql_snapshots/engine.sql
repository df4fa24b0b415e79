-- PARTIAL_ANSWERS
SET geofix.partial_answers = on

-- _prepare()
SET search_path = geofix, public

-- _prepare()
SELECT 1 FROM pg_type WHERE typname = 'halfvec'
