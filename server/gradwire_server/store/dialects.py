"""The two kinds of database that hold the store: a SQLite file, and Postgres by URL. What differs between them."""

import os
import platform
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

# What Postgres calls it when it has no room, and when two transactions wait for each other or came between each other.
_DISK_FULL = "53100"
_RUN_AGAIN = ("40001", "40P01")
# A server that does not hear from Postgres for these seconds, on a line that has silently died, connects anew.
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

# What this process is called in the database: who holds the lease, and in Postgres' list of connections.
SERVER_NAME = f"gradwire server {platform.node()} {os.getpid()}"


class StoreError(RuntimeError):
    """The database is not one that this server can use."""


def open_engine(location: Path | str) -> Engine:
    """Return an engine for a file, or for a URL as postgresql://user:password@host/database."""
    return _sqlite(location) if isinstance(location, Path) else _postgres(location)


def describe(location: Path | str) -> str:
    """Return what to call a database in a message: a URL without its password."""
    return str(location) if isinstance(location, Path) else make_url(location).render_as_string(hide_password=True)


def is_away(error: BaseException) -> bool:
    """Whether Postgres did not answer, or broke the connection off: nothing is wrong with what was asked."""
    if not isinstance(error, DBAPIError) or is_full(error) or is_conflict(error):
        return False
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    )


def is_full(error: BaseException) -> bool:
    """Whether the database has no room on its disk."""
    if not isinstance(error, DBAPIError):
        return False
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0)
    return sqlite_code == sqlite3.SQLITE_FULL or _sqlstate(error) == _DISK_FULL


def is_conflict(error: BaseException) -> bool:
    """Whether another server's transaction came between: the same may be tried again at once."""
    return isinstance(error, IntegrityError) or (isinstance(error, DBAPIError) and _sqlstate(error) in _RUN_AGAIN)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


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
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"application_name": SERVER_NAME, "connect_timeout": 5, **_KEEPALIVE},
    )
