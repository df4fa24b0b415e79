-- S2 cells for SQL: the same ids, tokens, ranges, centres and neighbours as the official library.
--
-- An id is a bigint in two's complement: 3 bits of face, 60 bits of position along the face's Hilbert curve, and a
-- trailing one whose place tells the level. All descendants of a cell lie in one range of leaf ids.
-- On every level the curve visits four quadrants in one of four orders (bit 1 of the order swaps the axes, bit 2
-- inverts both). The tables below walk three levels at once: byte (i << 5 | j << 2 | order) -> position << 2 | next
-- order, and byte (position << 2 | order) -> i << 5 | j << 2 | next order.
--
-- One-line functions are plain expressions that the planner inlines, which STRICT would forbid; NULL in gives NULL
-- out everywhere. A bad argument raises an error that names it (SQLSTATE 22023).

CREATE OR REPLACE FUNCTION geofix.s2_error(problem text, id bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
  RAISE EXCEPTION '%: % (token %)', problem, id, rtrim(lpad(to_hex(id), 16, '0'), '0') USING ERRCODE = '22023';
END $$;

CREATE OR REPLACE FUNCTION geofix.s2_is_valid(id bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((id >> 61) & 7) < 6
  AND ((id & 2305843009213693951) & -(id & 2305843009213693951) & 1537228672809129301) <> 0;

-- The id itself, or an error.
CREATE OR REPLACE FUNCTION geofix.s2_checked(id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT geofix.s2_is_valid(id) THEN geofix.s2_error('not the id of an S2 cell', id) ELSE id END;

-- 0 (a face of the cube) to 30 (about a centimetre).
CREATE OR REPLACE FUNCTION geofix.s2_level(id bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT geofix.s2_is_valid(id) THEN geofix.s2_error('not the id of an S2 cell', id)::integer
  ELSE 30 - round(ln((id & -id)::double precision) / 1.3862943611198906)::integer END;

-- The ancestor at a level no finer than the cell's own.
CREATE OR REPLACE FUNCTION geofix.s2_parent(id bigint, level integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN NOT geofix.s2_is_valid(id) THEN geofix.s2_error('not the id of an S2 cell', id)
  WHEN level NOT BETWEEN 0 AND 30 OR (id & -id) > (1152921504606846976 >> (2 * level))
    THEN geofix.s2_error('no parent at level ' || level::text || ' of S2 cell', id)
  ELSE (id & -(1152921504606846976 >> (2 * level))) | (1152921504606846976 >> (2 * level)) END;

CREATE OR REPLACE FUNCTION geofix.s2_children(id bigint) RETURNS SETOF bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT ROWS 4
BEGIN ATOMIC
  SELECT CASE WHEN geofix.s2_checked(id) & 1 = 1 THEN geofix.s2_error('a leaf has no children', id)
    ELSE id + ((id & -id) >> 2) * step.of_child END
  FROM (VALUES (-3), (-1), (1), (3)) AS step (of_child);
END;

-- First and last leaf id, both inclusive: descendants of any level lie BETWEEN them.
CREATE OR REPLACE FUNCTION geofix.s2_range_min(id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT geofix.s2_is_valid(id) THEN geofix.s2_error('not the id of an S2 cell', id)
  ELSE id - ((id & -id) - 1) END;

CREATE OR REPLACE FUNCTION geofix.s2_range_max(id bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN NOT geofix.s2_is_valid(id) THEN geofix.s2_error('not the id of an S2 cell', id)
  ELSE id + ((id & -id) - 1) END;

CREATE OR REPLACE FUNCTION geofix.s2_range(id bigint, OUT lo bigint, OUT hi bigint)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
BEGIN
  hi := (geofix.s2_checked(id) & -id) - 1;
  lo := id - hi;
  hi := id + hi;
END $$;

-- Hexadecimal without trailing zeros, at most 16 characters.
CREATE OR REPLACE FUNCTION geofix.s2_token(id bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rtrim(lpad(to_hex(geofix.s2_checked(id)), 16, '0'), '0');

CREATE OR REPLACE FUNCTION geofix.s2_from_token(token text) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  id bigint;
BEGIN
  IF token ~ '^[0-9a-fA-F]{1,16}$' THEN
    id := ('x' || rpad(token, 16, '0'))::bit(64)::bigint;
    IF geofix.s2_is_valid(id) THEN
      RETURN id;
    END IF;
  END IF;
  RAISE EXCEPTION 'not the token of an S2 cell: "%"', token USING ERRCODE = '22023';
END $$;

-- Leaf coordinates (0..2^30-1) on a face 0..5 to the id of the cell of a level that holds them. For the functions
-- below: it trusts its arguments.
CREATE OR REPLACE FUNCTION geofix.s2_encode(face integer, i integer, j integer, level integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  curve CONSTANT bytea :=
    '\x0100aaab040eada73a11b09b3d14be9740eac16b4eedc46751f0fa5b54fefd570f05a6ac0809a3a2361fb59c3318b992'
    '45e6cf6c49e3c8625ff5f65c58f9f352103b9ab11e379db420218b8a2e24878d7bdad07177ddde7461cbe04a64c7ee4d'
    '153c96bf193293b8252f8c86292882837cd6d57f72d3d9786fcce54668c2e943eb416ac0e7446dcedb7a70d1d77d7ed4'
    '80812b2a8e84272d91ba1b3094bd173eec4f66c5e24863c9dc7675dfd27379d8858f2c26898822239fb61c3598b31239'
    'f1505afbf45e5df7ca604be1cd6e47e4bb90311ab79e341da1a00a0ba4ae0d07ff5556fcf85953f2c6654cefc36942e8'
    'bc953f16b2993813afa5060ca8a90302';
  v1 integer; v2 integer; v3 integer; v4 integer; v5 integer;
  v6 integer; v7 integer; v8 integer; v9 integer; v10 integer;
  lsb CONSTANT bigint := 1152921504606846976 >> (2 * level);
  id bigint;
BEGIN
  v1 := get_byte(curve, ((i >> 22) & 224) | ((j >> 25) & 28) | (face & 1));
  v2 := get_byte(curve, ((i >> 19) & 224) | ((j >> 22) & 28) | (v1 & 3));
  v3 := get_byte(curve, ((i >> 16) & 224) | ((j >> 19) & 28) | (v2 & 3));
  v4 := get_byte(curve, ((i >> 13) & 224) | ((j >> 16) & 28) | (v3 & 3));
  v5 := get_byte(curve, ((i >> 10) & 224) | ((j >> 13) & 28) | (v4 & 3));
  id := (face::bigint << 61)
    | ((((v1 & 252) << 22) | ((v2 & 252) << 16) | ((v3 & 252) << 10) | ((v4 & 252) << 4) | (v5 >> 2))::bigint << 31);
  IF level > 15 THEN
    v6 := get_byte(curve, ((i >> 7) & 224) | ((j >> 10) & 28) | (v5 & 3));
    v7 := get_byte(curve, ((i >> 4) & 224) | ((j >> 7) & 28) | (v6 & 3));
    v8 := get_byte(curve, ((i >> 1) & 224) | ((j >> 4) & 28) | (v7 & 3));
    v9 := get_byte(curve, ((i << 2) & 224) | ((j >> 1) & 28) | (v8 & 3));
    v10 := get_byte(curve, ((i << 5) & 224) | ((j << 2) & 28) | (v9 & 3));
    id := id | (
      (((v6 & 252) << 22) | ((v7 & 252) << 16) | ((v8 & 252) << 10) | ((v9 & 252) << 4) | (v10 >> 2))::bigint << 1);
  END IF;
  RETURN (id & -lsb) | lsb;
END $$;

-- Face, lowest leaf coordinates and side in leaves of a cell.
CREATE OR REPLACE FUNCTION geofix.s2_decode(
  id bigint, OUT face integer, OUT i integer, OUT j integer, OUT size integer
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  curve CONSTANT bytea :=
    '\x0100fffe0421fadf2425dadb2306ddf84009bef7610c9ff2652c9bd2462bb8d54849b6b7694c97b26d6c93924e6bb095'
    '2f66d1982a47d4b90a43f4bd0d60f39e1081ee7f3184cf7a35a4cb5a16a3e85d19c0e73e1ce1e21f3ce5c21b3bc6c538'
    '59c8a7365ce9a2177ced82137bce853076af885157aaa954538aad74708d8e7390916e6fb1944f6ab5b44b4a96b3684d'
    '99d0672e9cf1620fbcf5420bbbd64528d9d82726dcf92207fcfd0203fbde0520f6bf0841d7ba2944d39a2d64f09d0e63'
    'ef7e1180ea5f14a1ca5b34a5cd783386ae7750898f72718c8b5275aca85556aba63758c9873279cc83127deca0155eeb'
    'c1183fe6c4393ac7e43d1ac3e31e1de0';
  high CONSTANT integer := (id >> 31) & 1073741823;
  low CONSTANT integer := (id >> 1) & 1073741823;
  v1 integer; v2 integer; v3 integer; v4 integer; v5 integer;
  v6 integer; v7 integer; v8 integer; v9 integer; v10 integer;
BEGIN
  size := 1 << (30 - geofix.s2_level(id));
  face := (id >> 61) & 7;
  v1 := get_byte(curve, ((high >> 22) & 252) | (face & 1));
  v2 := get_byte(curve, ((high >> 16) & 252) | (v1 & 3));
  v3 := get_byte(curve, ((high >> 10) & 252) | (v2 & 3));
  v4 := get_byte(curve, ((high >> 4) & 252) | (v3 & 3));
  v5 := get_byte(curve, ((high << 2) & 252) | (v4 & 3));
  i := ((v1 >> 5) << 27) | ((v2 >> 5) << 24) | ((v3 >> 5) << 21) | ((v4 >> 5) << 18) | ((v5 >> 5) << 15);
  j := ((v1 & 28) << 25) | ((v2 & 28) << 22) | ((v3 & 28) << 19) | ((v4 & 28) << 16) | ((v5 & 28) << 13);
  IF size < 32768 THEN
    v6 := get_byte(curve, ((low >> 22) & 252) | (v5 & 3));
    v7 := get_byte(curve, ((low >> 16) & 252) | (v6 & 3));
    v8 := get_byte(curve, ((low >> 10) & 252) | (v7 & 3));
    v9 := get_byte(curve, ((low >> 4) & 252) | (v8 & 3));
    v10 := get_byte(curve, ((low << 2) & 252) | (v9 & 3));
    i := i | ((v6 >> 5) << 12) | ((v7 >> 5) << 9) | ((v8 >> 5) << 6) | ((v9 >> 5) << 3) | (v10 >> 5);
    j := j | ((v6 & 28) << 10) | ((v7 & 28) << 7) | ((v8 & 28) << 4) | ((v9 & 28) << 1) | ((v10 & 28) >> 2);
  END IF;
  i := i & -size;
  j := j & -size;
END $$;

-- The cell of a level that contains a position in degrees.
CREATE OR REPLACE FUNCTION geofix.s2_cell_at(
  lon double precision, lat double precision, level integer DEFAULT 30
) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  x double precision;
  y double precision;
  z double precision;
  face integer;
  u double precision;
  v double precision;
BEGIN
  -- NaN sorts above every number, so it fails here too.
  IF NOT (lon BETWEEN -180 AND 180 AND lat BETWEEN -90 AND 90 AND level BETWEEN 0 AND 30) THEN
    RAISE EXCEPTION 's2_cell_at: longitude %, latitude %, level % out of range (-180..180, -90..90, 0..30)',
      lon, lat, level USING ERRCODE = '22023';
  END IF;
  z := cos(radians(lat));
  x := cos(radians(lon)) * z;
  y := sin(radians(lon)) * z;
  z := sin(radians(lat));
  IF abs(x) > abs(y) AND abs(x) > abs(z) THEN
    IF x > 0 THEN face := 0; u := y / x; v := z / x;
    ELSE face := 3; u := z / x; v := y / x; END IF;
  ELSIF abs(x) <= abs(y) AND abs(y) > abs(z) THEN
    IF y > 0 THEN face := 1; u := -x / y; v := z / y;
    ELSE face := 4; u := z / y; v := -x / y; END IF;
  ELSIF z > 0 THEN face := 2; u := -x / z; v := -y / z;
  ELSE face := 5; u := -y / z; v := -x / z;
  END IF;
  -- S2's quadratic transform to 0..1, then to the leaf's coordinate.
  RETURN geofix.s2_encode(
    face,
    least(1073741823, greatest(0, (1073741824 *
      CASE WHEN u >= 0 THEN 0.5 * sqrt(1 + 3 * u) ELSE 1 - 0.5 * sqrt(1 - 3 * u) END - 0.5)::integer)),
    least(1073741823, greatest(0, (1073741824 *
      CASE WHEN v >= 0 THEN 0.5 * sqrt(1 + 3 * v) ELSE 1 - 0.5 * sqrt(1 - 3 * v) END - 0.5)::integer)),
    level);
END $$;

-- Longitude and latitude in degrees of a position (s, t) in 0..1 of a face; longitude 0 at a pole.
CREATE OR REPLACE FUNCTION geofix.s2_face_lonlat(
  face integer, s double precision, t double precision, OUT lon double precision, OUT lat double precision
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  u CONSTANT double precision := CASE WHEN s >= 0.5 THEN (4 * s * s - 1) / 3 ELSE (1 - 4 * (1 - s) * (1 - s)) / 3 END;
  v CONSTANT double precision := CASE WHEN t >= 0.5 THEN (4 * t * t - 1) / 3 ELSE (1 - 4 * (1 - t) * (1 - t)) / 3 END;
BEGIN
  CASE face
    WHEN 0 THEN lon := atan2(u, 1); lat := atan(v / sqrt(1 + u * u));
    WHEN 1 THEN lon := atan2(1, -u); lat := atan(v / sqrt(1 + u * u));
    WHEN 3 THEN lon := atan2(-v, -1); lat := atan(-u / sqrt(1 + v * v));
    WHEN 4 THEN lon := atan2(-1, v); lat := atan(-u / sqrt(1 + v * v));
    WHEN 2 THEN lon := CASE WHEN u = 0 AND v = 0 THEN 0 ELSE atan2(-v, -u) END; lat := atan2(1, sqrt(u * u + v * v));
    ELSE lon := CASE WHEN u = 0 AND v = 0 THEN 0 ELSE atan2(u, v) END; lat := atan2(-1, sqrt(u * u + v * v));
  END CASE;
  lon := degrees(lon) + 0;  -- no negative zero
  lat := degrees(lat);
END $$;

-- Longitude and latitude of the middle, as a point in EPSG:4326.
CREATE OR REPLACE FUNCTION geofix.s2_center(id bigint) RETURNS public.geometry
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  cell record;
  at record;
BEGIN
  cell := geofix.s2_decode(id);
  at := geofix.s2_face_lonlat(
    cell.face, (cell.i + 0.5 * cell.size) / 1073741824, (cell.j + 0.5 * cell.size) / 1073741824);
  RETURN public.ST_SetSRID(public.ST_MakePoint(at.lon, at.lat), 4326);
END $$;

-- The outline in EPSG:4326, within -180..180 and -90..90: split at the 180th meridian, and as wide at a pole as the
-- cell's longitudes. Edges are geodesics; coarser than level 10 they get points at most 11 km apart, so that the
-- outline departs from the true one by at most 2.5 m * tan(latitude).
CREATE OR REPLACE FUNCTION geofix.s2_polygon(id bigint) RETURNS public.geometry
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  cell record;
  at record;
  points public.geometry[] := '{}';
  whole public.geometry;
  per_edge integer;
  start integer;
  edge integer;
  along double precision;
  pole double precision;      -- set between a pole and the next point
  lon double precision := 0;
  first_lon double precision;
  low double precision := 180;
  high double precision := -180;
BEGIN
  cell := geofix.s2_decode(id);
  per_edge := greatest(1, cell.size >> 20);
  -- Where corner 0 is a pole, begin at corner 1: a pole is drawn between two other points.
  start := CASE WHEN cell.face IN (2, 5) AND cell.i = 536870912 AND cell.j = 536870912 THEN per_edge ELSE 0 END;
  FOR k IN start .. start + 4 * per_edge LOOP
    edge := (k / per_edge) % 4;
    along := (k % per_edge)::double precision / per_edge;
    at := geofix.s2_face_lonlat(
      cell.face,
      (cell.i + cell.size * CASE edge WHEN 0 THEN along WHEN 1 THEN 1 WHEN 2 THEN 1 - along ELSE 0 END) / 1073741824,
      (cell.j + cell.size * CASE edge WHEN 0 THEN 0 WHEN 1 THEN along WHEN 2 THEN 1 ELSE 1 - along END) / 1073741824);
    IF abs(at.lat) = 90 THEN
      pole := at.lat;
      points := points || public.ST_MakePoint(lon, pole);
      CONTINUE;
    END IF;
    -- Longitudes run on without a jump at the 180th meridian.
    lon := at.lon + CASE WHEN abs(at.lon - lon) > 180 THEN 360 * round((lon - at.lon) / 360) ELSE 0 END;
    IF k = start THEN
      lon := at.lon;
      first_lon := lon;
    END IF;
    IF pole IS NOT NULL THEN
      points := points || public.ST_MakePoint(lon, pole);
      pole := NULL;
    END IF;
    points := points || public.ST_MakePoint(lon, at.lat);
    low := least(low, lon);
    high := greatest(high, lon);
  END LOOP;
  IF lon <> first_lon THEN  -- the ring went once round: a pole lies inside
    pole := 90 * sign(at.lat);
    points := points || public.ST_MakePoint(lon, pole) || public.ST_MakePoint(first_lon, pole) || points[1];
  END IF;
  whole := public.ST_SetSRID(public.ST_MakePolygon(public.ST_MakeLine(points)), 4326);
  IF low >= -180 AND high <= 180 THEN
    RETURN whole;
  END IF;
  RETURN public.ST_Union(ARRAY(
    SELECT public.ST_Translate(part.geom, -360 * turn, 0)
    FROM generate_series(-1, 1) AS turn,
    LATERAL public.ST_Dump(public.ST_CollectionExtract(public.ST_Intersection(
      whole, public.ST_MakeEnvelope(360 * turn - 180, -90, 360 * turn + 180, 90, 4326)), 3)) AS part
    WHERE public.ST_Area(part.geom) > 1e-9 * public.ST_Area(whole)));
END $$;

-- The cells of the same level that share an edge or a corner: eight, seven at a corner of the cube, four of a face.
CREATE OR REPLACE FUNCTION geofix.s2_neighbors(id bigint) RETURNS SETOF bigint
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT ROWS 8 AS $$
DECLARE
  cell record;
  level CONSTANT integer := geofix.s2_level(id);
  last CONSTANT integer := 1073741823;
  even boolean;
  i bigint;
  j bigint;
BEGIN
  cell := geofix.s2_decode(id);
  even := cell.face % 2 = 0;
  FOR di IN -1 .. 1 LOOP
    i := cell.i + di * cell.size::bigint;
    FOR dj IN -1 .. 1 LOOP
      j := cell.j + dj * cell.size::bigint;
      -- Beyond an edge the leaf grids of two faces match one to one; faces 0, 2, 4 are alike, and so are 1, 3, 5.
      IF i BETWEEN 0 AND last AND j BETWEEN 0 AND last THEN
        IF di <> 0 OR dj <> 0 THEN
          RETURN NEXT geofix.s2_encode(cell.face, i::integer, j::integer, level);
        END IF;
      ELSIF j BETWEEN 0 AND last THEN
        RETURN NEXT CASE
          WHEN i > last AND even THEN geofix.s2_encode((cell.face + 1) % 6, 0, j::integer, level)
          WHEN i > last THEN geofix.s2_encode((cell.face + 2) % 6, last - j::integer, 0, level)
          WHEN even THEN geofix.s2_encode((cell.face + 4) % 6, last - j::integer, last, level)
          ELSE geofix.s2_encode((cell.face + 5) % 6, last, j::integer, level) END;
      ELSIF i BETWEEN 0 AND last THEN
        RETURN NEXT CASE
          WHEN j > last AND even THEN geofix.s2_encode((cell.face + 2) % 6, 0, last - i::integer, level)
          WHEN j > last THEN geofix.s2_encode((cell.face + 1) % 6, i::integer, 0, level)
          WHEN even THEN geofix.s2_encode((cell.face + 5) % 6, i::integer, last, level)
          ELSE geofix.s2_encode((cell.face + 4) % 6, last, last - i::integer, level) END;
      END IF;
    END LOOP;
  END LOOP;
END $$;
