"""Code sets over several servers: who they are, which range of cells each holds, what is under way."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    Uuid,
)

from geofix.database.schema.columns import SCHEMA, document, identifier, metadata, stamp

shard = Table(
    "shard",
    metadata,
    identifier("shard_id"),
    Column("name", Text, nullable=False, unique=True),
    Column("server", Text, nullable=False, unique=True, comment="name of the foreign server"),
    Column("address", Text, nullable=False, comment="host, port and database; never a password"),
    Column("reader", Text, nullable=False, comment="login there that may only read"),
    Column("token", Uuid, nullable=False, comment="the same stands on the shard: one shard, one owner"),
    stamp("added_at"),
    comment="Other PostgreSQL servers that hold parts of code sets; logins stand in user mappings",
)

# Names of tables on the shards hold the generation, so no number may come again.
shard_generation = Sequence("shard_generation", metadata=metadata, schema=SCHEMA, data_type=Integer)

# No reference to the code set: when it is dropped, the rows say which tables are left on the shards.
shard_piece = Table(
    "shard_piece",
    metadata,
    Column("code_set_id", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False, comment="of the move that made it, never used again"),
    Column("piece", Integer, nullable=False),
    Column(
        "shard_id",
        BigInteger,
        ForeignKey(f"{SCHEMA}.shard.shard_id", ondelete="RESTRICT"),
        index=True,
        comment="null: this server",
    ),
    Column("lo", BigInteger, nullable=False, comment="first S2 id"),
    Column("hi", BigInteger, nullable=False, comment="last S2 id"),
    Column("cells", BigInteger, nullable=False, server_default="0"),
    Column("checksum", Numeric, comment="sum of 64 bits of the SHA-256 of every row"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('filling','live','gone')", name="state"),
        nullable=False,
        comment="gone: the table is to be removed",
    ),
    PrimaryKeyConstraint("code_set_id", "generation", "piece"),
    comment="Ranges of cells of distributed code sets, one table each",
)

shard_move = Table(
    "shard_move",
    metadata,
    Column(
        "code_set_id",
        BigInteger,
        ForeignKey(f"{SCHEMA}.code_set.code_set_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("generation", Integer, nullable=False, comment="of the pieces that are being filled"),
    document("target"),
    stamp("started_at"),
    comment="Distributions under way: what an interrupted one goes on with",
)
