"""Alembic's environment: compare the database with geofix.database.schema."""

from __future__ import annotations

from typing import Any

from alembic import context
from geoalchemy2 import alembic_helpers

from geofix.database.cluster import database_url
from geofix.database.migrate import schema_engine
from geofix.database.schema import SCHEMA, metadata
from geofix.settings import get_settings

config = context.config


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """Look at our own schema alone: leaves and PostGIS' tables are not ours to compare."""
    if type_ == "schema":
        return name == SCHEMA
    return True


def run(connection: Any) -> None:
    """Run the revisions on an open connection, in its transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=include_name,
        include_object=alembic_helpers.include_object,
        process_revision_directives=alembic_helpers.writer,
        render_item=alembic_helpers.render_item,
        version_table_schema=SCHEMA,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = config.attributes.get("connection")
if given is not None:
    run(given)
else:
    # Called as plain `alembic`: the owner's connection of the settings.
    with schema_engine(database_url(get_settings(), "owner")).begin() as connection:
        run(connection)
