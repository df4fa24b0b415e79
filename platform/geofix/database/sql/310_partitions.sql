-- Partitions: which class a photo belongs to, by S2 containment, and what analysts and maps see of them.

CREATE OR REPLACE FUNCTION geofix.partition_id(partition text) RETURNS bigint
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  found_id bigint;
BEGIN
  SELECT p.partition_id INTO found_id FROM geofix.partition p WHERE p.name = partition_id.partition;
  IF found_id IS NULL THEN
    RAISE EXCEPTION 'no partition is named %; SELECT name FROM geofix.partition_summary',
      quote_nullable(partition_id.partition) USING ERRCODE = '22023';
  END IF;
  RETURN found_id;
END $$;

-- Class of one leaf id (or cell no coarser than the partition's); -1 outside every class. Cells of a partition are
-- disjoint, so the last one that begins at or before the leaf is the only one that can hold it. Administrative
-- partitions have no cells: there the polygon decides, the smallest where several hold the place.
CREATE OR REPLACE FUNCTION geofix.partition_class_at(partition text, s2_id bigint) RETURNS integer
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  wanted bigint := geofix.partition_id(partition_class_at.partition);
  found integer;
BEGIN
  IF (SELECT p.kind = 'administrative' FROM geofix.partition p WHERE p.partition_id = wanted) THEN
    SELECT c.class INTO found FROM geofix.partition_class c
    WHERE c.partition_id = wanted AND public.ST_Covers(c.geom, geofix.s2_center(partition_class_at.s2_id))
    ORDER BY public.ST_Area(c.geom), c.class LIMIT 1;
  ELSE
    SELECT CASE WHEN k.leaf_last >= geofix.s2_range_max(partition_class_at.s2_id) THEN k.class END INTO found
    FROM geofix.partition_cell k
    WHERE k.partition_id = wanted AND k.leaf_first <= geofix.s2_range_min(partition_class_at.s2_id)
    ORDER BY k.leaf_first DESC LIMIT 1;
  END IF;
  RETURN coalesce(found, -1);
END $$;

-- Class of every photo (of one data set, or of all), -1 outside every class. Administrative partitions go by the region
-- that a photo was given when it was loaded: inside, else the nearest within 25 km.
CREATE OR REPLACE FUNCTION geofix.partition_photos(partition text, dataset text DEFAULT NULL)
RETURNS TABLE (photo_id bigint, s2_id bigint, class integer)
LANGUAGE plpgsql STABLE AS $$
DECLARE
  wanted bigint := geofix.partition_id(partition_photos.partition);
  administrative text;
  only_dataset bigint;
BEGIN
  SELECT p.region_level INTO administrative FROM geofix.partition p WHERE p.partition_id = wanted;
  IF partition_photos.dataset IS NOT NULL THEN
    SELECT d.dataset_id INTO only_dataset FROM geofix.dataset d WHERE d.name = partition_photos.dataset;
    IF only_dataset IS NULL THEN
      RAISE EXCEPTION 'no data set is named %; SELECT name FROM geofix.dataset', quote_literal(partition_photos.dataset)
        USING ERRCODE = '22023';
    END IF;
  END IF;
  IF administrative IS NOT NULL THEN
    RETURN QUERY
      SELECT r.photo_id, r.s2_id, coalesce(c.class, -1)
      FROM geofix.photo_record r
      LEFT JOIN geofix.photo_region a ON a.photo_id = r.photo_id AND a.level = administrative
      LEFT JOIN geofix.region g ON g.region_id = a.region_id
      LEFT JOIN geofix.partition_class c ON c.partition_id = wanted AND c.region_code = g.code
      WHERE only_dataset IS NULL OR r.dataset_id = only_dataset;
  ELSE
    RETURN QUERY
      SELECT r.photo_id, r.s2_id, CASE WHEN k.leaf_last >= r.s2_id THEN k.class ELSE -1 END
      FROM geofix.photo_record r
      LEFT JOIN LATERAL (
        SELECT x.class, x.leaf_last FROM geofix.partition_cell x
        WHERE x.partition_id = wanted AND x.leaf_first <= r.s2_id ORDER BY x.leaf_first DESC LIMIT 1
      ) k ON true
      WHERE only_dataset IS NULL OR r.dataset_id = only_dataset;
  END IF;
END $$;

CREATE OR REPLACE VIEW geofix.partition_summary AS
SELECT p.partition_id, p.name, p.kind, p.classes, p.photos, s.uri AS snapshot,
       ARRAY(SELECT d.name FROM geofix.dataset d WHERE d.dataset_id = ANY (p.dataset_ids) ORDER BY 1) AS datasets,
       c.name AS coarser,
       ARRAY(SELECT g.name FROM unnest(p.set_ids) WITH ORDINALITY AS u (id, n)
             JOIN geofix.partition g ON g.partition_id = u.id ORDER BY u.n) AS sets,
       p.region_level, k.cells, k.min_level, k.max_level, p.parameters, p.stale_reason, p.software_version, p.created_at
FROM geofix.partition p
LEFT JOIN geofix.snapshot s USING (snapshot_id)
LEFT JOIN geofix.partition c ON c.partition_id = p.coarser_id
LEFT JOIN LATERAL (
  SELECT count(*) AS cells, min(geofix.s2_level(x.s2_id)) AS min_level, max(geofix.s2_level(x.s2_id)) AS max_level
  FROM geofix.partition_cell x WHERE x.partition_id = p.partition_id
) k ON true;

CREATE OR REPLACE VIEW geofix.partition_map AS
SELECT p.name AS partition, p.kind, c.class, c.s2_id, geofix.s2_token(c.s2_id) AS s2_token,
       geofix.s2_level(c.s2_id) AS level, c.region_code, c.photos, c.parent_class, c.members,
       public.ST_X(c.mean_geom) AS mean_lon, public.ST_Y(c.mean_geom) AS mean_lat, c.mean_geom, c.geom
FROM geofix.partition_class c JOIN geofix.partition p USING (partition_id);
