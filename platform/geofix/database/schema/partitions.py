"""Partitions: how the earth is cut into classes, for localizers and for maps."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from geofix.database.schema.columns import (
    document,
    gist_index,
    identifier,
    metadata,
    reference,
    shape,
    stamp,
)

partition = Table(
    "partition",
    metadata,
    identifier("partition_id"),
    Column("name", Text, nullable=False, unique=True),
    Column(
        "kind",
        Text,
        CheckConstraint(
            "kind IN ('uniform','adaptive','geoclass','combinatorial','administrative','listed')", name="kind"
        ),
        nullable=False,
    ),
    reference("snapshot_id", "snapshot.snapshot_id", nullable=True, cascade=False),
    Column(
        "dataset_ids",
        ARRAY(BigInteger),
        nullable=False,
        server_default="{}",
        comment="whose photos it was made from",
    ),
    reference("coarser_id", "partition.partition_id", nullable=True, cascade=False),
    Column(
        "set_ids",
        ARRAY(BigInteger),
        nullable=False,
        server_default="{}",
        comment="partitions that a combinatorial one is the intersection of",
    ),
    Column("region_level", Text, comment="level of the regions; administrative alone"),
    document("parameters"),
    Column("classes", Integer, nullable=False),
    Column("photos", BigInteger, nullable=False, comment="photos in a class when it was made"),
    Column("stale_reason", Text, comment="why it should be made again; null: it need not"),
    Column("software_version", Text, nullable=False),
    stamp("created_at"),
    comment="How the earth is cut into classes (views: partition_summary, partition_map)",
)


partition_class = Table(
    "partition_class",
    metadata,
    reference("partition_id", "partition.partition_id"),
    Column("class", Integer, nullable=False, comment="0 .. classes - 1, the index a classifier answers with"),
    Column("s2_id", BigInteger, comment="the class's cell, where it is one"),
    Column("region_code", Text, comment="administrative alone"),
    Column("photos", Integer, CheckConstraint("photos > 0", name="photos"), nullable=False),
    Column("parent_class", Integer, comment="class of the coarser partition that holds this one"),
    Column("members", ARRAY(Integer), comment="class of each of set_ids, -1 for none; combinatorial alone"),
    shape("POINT", name="mean_geom"),
    shape("MULTIPOLYGON", nullable=True),
    PrimaryKeyConstraint("partition_id", "class"),
    gist_index("partition_class"),
    comment="Classes of a partition; mean_geom is what a class answers, geom is for maps",
)


partition_cell = Table(
    "partition_cell",
    metadata,
    reference("partition_id", "partition.partition_id"),
    Column("s2_id", BigInteger, nullable=False),
    Column("leaf_first", BigInteger, nullable=False, comment="first leaf id of the cell"),
    Column("leaf_last", BigInteger, nullable=False, comment="last leaf id of the cell"),
    Column("class", Integer, nullable=False),
    PrimaryKeyConstraint("partition_id", "s2_id"),
    Index("partition_cell_leaf_first_idx", "partition_id", "leaf_first", unique=True),
    comment="Disjoint S2 cells of a partition; labels are made from these, never from polygons",
)
