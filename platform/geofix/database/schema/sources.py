"""Photos, regions, rasters and the grid: what was handed in."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from geofix.database.schema.columns import (
    document,
    gist_index,
    identifier,
    metadata,
    reference,
    shape,
    stamp,
)

dataset = Table(
    "dataset",
    metadata,
    identifier("dataset_id"),
    Column("name", Text, nullable=False, unique=True),
    Column(
        "kind", Text, CheckConstraint("kind IN ('photos','aerial','regions')", name="kind"), nullable=False
    ),
    Column("licence", Text),
    Column("attribution", Text),
    Column("source_uri", Text),
    stamp("created_at"),
    comment="One source of photos, rasters or regions, with its licence and attribution",
)


region = Table(
    "region",
    metadata,
    identifier("region_id"),
    reference("dataset_id", "dataset.dataset_id"),
    Column("level", Text, nullable=False, comment="country, admin1 or a user's own level"),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("area_km2", Double, nullable=False),
    Column("repaired", Text, comment="why the polygon was repaired on loading; null: it was valid"),
    shape("MULTIPOLYGON"),
    stamp("loaded_at"),
    UniqueConstraint("level", "code"),
    gist_index("region"),
    comment="Named polygons: countries, admin-1, the user's own",
)


region_part = Table(
    "region_part",
    metadata,
    identifier("region_part_id"),
    reference("region_id", "region.region_id", index=True),
    Column("level", Text, nullable=False),
    shape("POLYGON"),
    gist_index("region_part"),
    comment="region cut by ST_Subdivide, so that point-in-polygon reads few vertices",
)


sequence = Table(
    "sequence",
    metadata,
    identifier("sequence_id"),
    reference("dataset_id", "dataset.dataset_id"),
    Column("key", Text, nullable=False, comment="name of the sequence in its source"),
    UniqueConstraint("dataset_id", "key"),
    comment="Photos taken in one go; never split between training and test",
)


photo_record = Table(
    "photo_record",
    metadata,
    identifier("photo_id"),
    reference("dataset_id", "dataset.dataset_id"),
    reference("sequence_id", "sequence.sequence_id", nullable=True, cascade=False, index=True),
    Column("source_key", Text, nullable=False, comment="path below the data set, or the source's own id"),
    Column("uri", Text, comment="fsspec URI of the pixels; null: position only"),
    Column("sha256", LargeBinary, comment="hash of the file"),
    Column("file_bytes", BigInteger),
    Column("file_mtime_ns", BigInteger, comment="with file_bytes: lets a second ingest skip unchanged files"),
    Column("width", Integer),
    Column("height", Integer),
    Column("s2_id", BigInteger, nullable=False, comment="leaf cell (level 30), two's complement"),
    Column("gps_accuracy_m", REAL),
    Column("heading_deg", REAL, CheckConstraint("heading_deg >= 0 AND heading_deg < 360", name="heading")),
    Column("captured_at", DateTime(timezone=True)),
    Column("author", Text),
    Column("licence", Text),
    Column("extra", JSONB),
    shape("POINT"),
    stamp("ingested_at"),
    UniqueConstraint("dataset_id", "source_key"),
    Index("photo_record_sha256_idx", "dataset_id", "sha256", unique=True),
    Index("photo_record_s2_id_idx", "s2_id"),
    # How many photos a data set has, and of when: every page of data sets asks, and would read all of them.
    Index("photo_record_dataset_id_captured_at_idx", "dataset_id", "captured_at"),
    # Every accuracy leaves out photos of a poor position: few, and else looked for in all of them.
    Index(
        "photo_record_gps_accuracy_m_idx",
        "gps_accuracy_m",
        postgresql_where=text("gps_accuracy_m IS NOT NULL"),
    ),
    gist_index("photo_record"),
    comment="Photo metadata; pixels stay in files (view: photo)",
)


photo_region = Table(
    "photo_region",
    metadata,
    reference("photo_id", "photo_record.photo_id"),
    Column("level", Text, nullable=False),
    reference("region_id", "region.region_id", index=True),
    Column("distance_m", REAL, nullable=False, comment="0 inside; else distance to the nearest region"),
    PrimaryKeyConstraint("photo_id", "level"),
    comment="Region of every photo per level: inside, else nearest within 25 km",
)


grid_cell = Table(
    "grid_cell",
    metadata,
    Column("level", SmallInteger, nullable=False),
    Column("s2_id", BigInteger, nullable=False),
    Column("photos", Integer, nullable=False),
    Column("first_captured_at", DateTime(timezone=True)),
    Column("last_captured_at", DateTime(timezone=True)),
    Column("aerial_tiles", Integer, nullable=False),
    Column("last_aerial", Date, comment="newest date of its tiles"),
    PrimaryKeyConstraint("level", "s2_id"),
    comment="Working area: cells with photos or aerial tiles, counted per level (view: cell)",
)


cell_change = Table(
    "cell_change",
    metadata,
    identifier("change_id"),
    comment="Statements that changed what cells are counted from, photos and aerial tiles, written by triggers",
)


grid_level = Table(
    "grid_level",
    metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("changes", BigInteger, nullable=False, comment="rows of the log"),
    Column("tile_levels", ARRAY(SmallInteger), nullable=False, comment="of aerial tiles"),
    stamp("written_at"),
    comment="What the cells of a level were counted from; they fit while no further change is in the log",
)


aerial_raster = Table(
    "aerial_raster",
    metadata,
    identifier("aerial_raster_id"),
    reference("dataset_id", "dataset.dataset_id"),
    Column("uri", Text, nullable=False),
    Column("kind", Text, CheckConstraint("kind IN ('raster','xyz','extent')", name="kind"), nullable=False),
    Column("sha256", LargeBinary),
    Column("file_bytes", BigInteger),
    Column("file_mtime_ns", BigInteger),
    Column("crs", Text, nullable=False, comment="EPSG:n or WKT"),
    Column("width", Integer),
    Column("height", Integer),
    Column("bands", SmallInteger),
    Column("dtype", Text),
    Column("gsd_m", REAL, nullable=False, comment="metres per pixel at the raster's centre"),
    Column("captured_at", Date),
    document("reading"),
    shape("MULTIPOLYGON"),
    stamp("ingested_at"),
    UniqueConstraint("dataset_id", "uri"),
    gist_index("aerial_raster"),
    comment="Aerial imagery on disk; reading holds what is needed to show it as RGB (stretch, zooms, transform)",
)


aerial_tile = Table(
    "aerial_tile",
    metadata,
    identifier("aerial_tile_id"),
    reference("dataset_id", "dataset.dataset_id"),
    Column("level", SmallInteger, nullable=False),
    Column("s2_id", BigInteger, nullable=False),
    Column("captured_at", Date),
    Column("side_m", REAL, nullable=False),
    Column(
        "coverage", REAL, CheckConstraint("coverage > 0 AND coverage <= 1", name="coverage"), nullable=False
    ),
    Column("aerial_raster_ids", ARRAY(BigInteger), nullable=False),
    UniqueConstraint("dataset_id", "s2_id", "captured_at", postgresql_nulls_not_distinct=True),
    Index("aerial_tile_s2_id_idx", "s2_id"),
    comment="One north-up tile per cell, source and date; pixels are cut from the rasters when needed",
)
