"""Code sets over several servers: shards, their pieces, moves under way.

Foreign servers and user mappings are made by `geofix shards add`; going down takes them away with the registry, and is
refused while codes are on other servers.

Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateSequence, DropSequence

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

GENERATION = sa.Sequence("shard_generation", schema="geofix", data_type=sa.Integer())

REFUSE = """
DO $$
DECLARE held text;
BEGIN
  SELECT string_agg(DISTINCT coalesce(c.name, p.code_set_id::text), ', ') INTO held
  FROM geofix.shard_piece p LEFT JOIN geofix.code_set c USING (code_set_id)
  WHERE p.shard_id IS NOT NULL AND p.state IN ('live', 'filling');
  IF held IS NOT NULL THEN
    RAISE EXCEPTION 'codes of % are on other servers and would be lost', held
      USING HINT = 'Bring them home first: geofix codes distribute NAME --back (or --cancel for a move under way).';
  END IF;
END $$
"""
DROP_SERVERS = """
DO $$
DECLARE item record;
BEGIN
  FOR item IN SELECT s.server FROM geofix.shard s JOIN pg_foreign_server f ON f.srvname = s.server LOOP
    EXECUTE format('DROP SERVER %I CASCADE', item.server);
  END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(CreateSequence(GENERATION))
    op.create_table(
        "shard",
        sa.Column("shard_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False, comment="name of the foreign server"),
        sa.Column("address", sa.Text(), nullable=False, comment="host, port and database; never a password"),
        sa.Column("reader", sa.Text(), nullable=False, comment="login there that may only read"),
        sa.Column(
            "token", sa.Uuid(), nullable=False, comment="the same stands on the shard: one shard, one owner"
        ),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("shard_id", name=op.f("shard_pkey")),
        sa.UniqueConstraint("name", name=op.f("shard_name_key")),
        sa.UniqueConstraint("server", name=op.f("shard_server_key")),
        schema="geofix",
        comment="Other PostgreSQL servers that hold parts of code sets; logins stand in user mappings",
    )
    op.create_table(
        "shard_piece",
        sa.Column("code_set_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "generation",
            sa.Integer(),
            nullable=False,
            comment="of the move that made it, never used again",
        ),
        sa.Column("piece", sa.Integer(), nullable=False),
        sa.Column("shard_id", sa.BigInteger(), nullable=True, comment="null: this server"),
        sa.Column("lo", sa.BigInteger(), nullable=False, comment="first S2 id"),
        sa.Column("hi", sa.BigInteger(), nullable=False, comment="last S2 id"),
        sa.Column("cells", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "checksum", sa.Numeric(), nullable=True, comment="sum of 64 bits of the SHA-256 of every row"
        ),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="gone: the table is to be removed"),
        sa.CheckConstraint("state IN ('filling','live','gone')", name=op.f("shard_piece_state_check")),
        sa.ForeignKeyConstraint(
            ["shard_id"],
            ["geofix.shard.shard_id"],
            name=op.f("shard_piece_shard_id_fkey"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("code_set_id", "generation", "piece", name=op.f("shard_piece_pkey")),
        schema="geofix",
        comment="Ranges of cells of distributed code sets, one table each",
    )
    op.create_index(
        op.f("shard_piece_shard_id_idx"), "shard_piece", ["shard_id"], unique=False, schema="geofix"
    )
    op.create_table(
        "shard_move",
        sa.Column("code_set_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False, comment="of the pieces that are being filled"),
        sa.Column(
            "target",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["code_set_id"],
            ["geofix.code_set.code_set_id"],
            name=op.f("shard_move_code_set_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("code_set_id", name=op.f("shard_move_pkey")),
        schema="geofix",
        comment="Distributions under way: what an interrupted one goes on with",
    )


def downgrade() -> None:
    op.execute(REFUSE)
    op.execute(DROP_SERVERS)
    op.drop_table("shard_move", schema="geofix")
    op.drop_index(op.f("shard_piece_shard_id_idx"), table_name="shard_piece", schema="geofix")
    op.drop_table("shard_piece", schema="geofix")
    op.drop_table("shard", schema="geofix")
    op.execute(DropSequence(GENERATION))
