"""Migrates a database to the current schema. A database from a later version is rejected."""

import logging
import zlib

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from gradwire_server.store.dialects import StoreError

_log = logging.getLogger(__name__)

# The Postgres advisory lock for migrations. It ensures that servers migrate one after another.
_LOCK = zlib.crc32(b"gradwire migration")
# The revision of databases from before gradwire used Alembic. They store the revision in a table named `schema`.
_BEFORE_ALEMBIC = "1"


def alembic_config(connection: Connection) -> Config:
    """Return the configuration for Alembic's commands on this connection."""
    config = Config()
    config.set_main_option("script_location", "gradwire_server:store/migrations")
    config.attributes["connection"] = connection
    return config


def migrate(connection: Connection, name: str) -> None:
    """Apply all missing revisions, or none if one of them fails.

    Args:
        connection: A connection that is not in a transaction.
        name: The name of the database in messages.

    Raises:
        StoreError: A later version of gradwire wrote the database.
    """
    config = alembic_config(connection)
    newest = ScriptDirectory.from_config(config).get_current_head()
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = MigrationContext.configure(connection).get_current_revision()
        if found == newest:
            return
        tables = inspect(connection).get_table_names()
        if found is None and "schema" in tables:
            found = str(connection.scalar(text("SELECT version FROM schema")))
            if found == _BEFORE_ALEMBIC:
                command.stamp(config, _BEFORE_ALEMBIC)
        if found is not None and int(found) > int(newest or 0):
            raise StoreError(
                f"{name} was written by a newer version of gradwire (schema {found}, this version supports {newest}). "
                "Run that version, or use another --store or --data"
            )
        if found is not None:
            _log.info("migrating %s from schema %s to %s", name, found, newest)
        command.upgrade(config, "head")
