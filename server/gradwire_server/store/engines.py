"""The two kinds of database that hold the store: a SQLite file, and Postgres by URL. What differs between them."""

import os
import platform
import zlib
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

# Names the lock that a server holds on its database as long as it runs.
_LOCK = zlib.crc32(b"gradwire server")


class StoreError(RuntimeError):
    """The database is not one that this server can use."""


def open_engine(location: Path | str) -> Engine:
    """Return an engine for a file, or for a URL as postgresql://user:password@host/database."""
    return _sqlite(location) if isinstance(location, Path) else _postgres(location)


def describe(location: Path | str) -> str:
    """Return what to call a database in a message: a URL without its password."""
    return str(location) if isinstance(location, Path) else make_url(location).render_as_string(hide_password=True)


def claim(connection: Connection) -> None:
    """Make this connection's server the only one on the database; StoreError names the one that is there.

    A SQLite file is in the server's data folder, which has a lock of its own.
    """
    if connection.dialect.name != "postgresql":
        return
    claimed = connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    if not claimed:
        holder = connection.scalar(
            text(
                "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
                "WHERE locktype = 'advisory' AND objid = :lock AND granted"
            ),
            {"lock": _LOCK},
        )
        raise StoreError(f"the database is in use by another server: {holder}")


def is_away(error: BaseException) -> bool:
    """Whether Postgres did not answer, or broke the connection off: nothing is wrong with what was asked."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    )


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # Transactions begin where SQLAlchemy says, not where the driver guesses; savepoints need that.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _postgres(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("--store must be a URL, as postgresql://user:password@host/database") from error
    if parsed.get_backend_name() != "postgresql":
        raise StoreError(f"--store must be a postgresql:// URL, got one that begins with {parsed.drivername}://")
    name = f"gradwire server {platform.node()} {os.getpid()}"
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"application_name": name, "connect_timeout": 5},
    )
