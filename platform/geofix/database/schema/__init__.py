"""All tables of the product, as SQLAlchemy metadata; Alembic compares this with the database.

Names: singular nouns, units in column names, geometry columns ``geom`` in EPSG:4326, S2 ids as
``bigint`` in two's complement. Base tables whose name an analyst's view takes are ``photo_record`` and
``grid_cell`` (views ``photo`` and ``cell``). Leaves of the partitioned vector tables live in the schema
``geofix_leaf``, so that a new model or code set never changes this file.
"""

from geofix.database.schema import learned, operations, partitions, results, shards, sources
from geofix.database.schema.columns import LEAF_SCHEMA, SCHEMA, metadata

__all__ = [
    "LEAF_SCHEMA",
    "SCHEMA",
    "learned",
    "metadata",
    "operations",
    "partitions",
    "results",
    "shards",
    "sources",
]
