"""What every table is built from: metadata, names of constraints, common columns."""

from __future__ import annotations

from typing import Any

from geoalchemy2 import Geometry
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "geofix"
LEAF_SCHEMA = "geofix_leaf"

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    },
)


def identifier(name: str) -> Column[Any]:
    """A generated primary key."""
    return Column(name, BigInteger, Identity(always=True), primary_key=True)


def reference(
    name: str, target: str, *, nullable: bool = False, cascade: bool = True, index: bool = False
) -> Column[Any]:
    """A foreign key to another table of the schema."""
    on_delete = "CASCADE" if cascade else ("SET NULL" if nullable else "RESTRICT")
    return Column(
        name, BigInteger, ForeignKey(f"{SCHEMA}.{target}", ondelete=on_delete), nullable=nullable, index=index
    )


def stamp(name: str) -> Column[Any]:
    """A timestamp that defaults to now."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def document(name: str) -> Column[Any]:
    """A JSON object that defaults to empty."""
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"))


def shape(kind: str, *, nullable: bool = False, name: str = "geom") -> Column[Any]:
    """A geometry column in EPSG:4326; its index is declared beside the table."""
    return Column(name, Geometry(kind, srid=4326, spatial_index=False), nullable=nullable)


def gist_index(table: str, column: str = "geom") -> Index:
    """The spatial index of a geometry column."""
    return Index(f"{table}_{column}_idx", column, postgresql_using="gist")
