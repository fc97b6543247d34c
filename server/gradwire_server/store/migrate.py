"""Brings a database to the tables that this version of the server knows; refuses one of a later version."""

import logging
import zlib

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from gradwire_server.store.dialects import StoreError

_log = logging.getLogger(__name__)

# Servers that start together take turns.
_LOCK = zlib.crc32(b"gradwire migration")
# The last step that stores have behind them which still count their changes in a table of their own.
_BEFORE_ALEMBIC = "1"


def alembic_config(connection: Connection) -> Config:
    """Return what Alembic's commands need to know to work on this connection."""
    config = Config()
    config.set_main_option("script_location", "gradwire_server:store/migrations")
    config.attributes["connection"] = connection
    return config


def migrate(connection: Connection, name: str) -> None:
    """Take the database through the steps that it lacks, all or none; StoreError if a later version has written it.

    name: what to call the database in a message.
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
                f"{name} was written by a newer gradwire (schema {found}, this one knows {newest}): "
                "run that version, or choose another place"
            )
        if found is not None:
            _log.info("%s goes from schema %s to %s", name, found, newest)
        command.upgrade(config, "head")
