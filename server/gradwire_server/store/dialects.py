"""What differs between the two databases that can be the store: a SQLite file, and Postgres by URL."""

import os
import platform
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

# SQLSTATEs of Postgres: the disk is full; transactions conflict or deadlock.
_DISK_FULL = "53100"
_CONFLICTS = ("40001", "40P01")
# TCP keepalive in seconds: a connection that is silently lost is noticed and replaced.
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

# The name of this process as the holder of the lease, and in the list of connections of Postgres.
SERVER_NAME = f"gradwire server {platform.node()} {os.getpid()}"


class StoreError(RuntimeError):
    """This server cannot use the database."""


def open_engine(location: Path | str) -> Engine:
    """Return an engine for a SQLite file, or for a URL such as postgresql://user:password@host/database."""
    return _sqlite(location) if isinstance(location, Path) else _postgres(location)


def describe(location: Path | str) -> str:
    """Return the name of a database for messages: a path, or a URL without its password."""
    return str(location) if isinstance(location, Path) else make_url(location).render_as_string(hide_password=True)


def is_unavailable(error: BaseException) -> bool:
    """Whether Postgres did not respond or closed the connection, so that the statement can be retried."""
    if not isinstance(error, DBAPIError) or is_disk_full(error) or is_conflict(error):
        return False
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk of the database is full."""
    if not isinstance(error, DBAPIError):
        return False
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0)
    return sqlite_code == sqlite3.SQLITE_FULL or _sqlstate(error) == _DISK_FULL


def is_conflict(error: BaseException) -> bool:
    """Whether the transaction conflicts with another server's transaction, so that it can be retried immediately."""
    return isinstance(error, IntegrityError) or (isinstance(error, DBAPIError) and _sqlstate(error) in _CONFLICTS)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # SQLAlchemy begins transactions, not the driver; savepoints need that.
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
        raise StoreError(
            "--store (GRADWIRE_STORE) must be a URL such as postgresql://user:password@host/database"
        ) from error
    if parsed.get_backend_name() != "postgresql":
        raise StoreError(
            f"--store (GRADWIRE_STORE) must be a postgresql:// URL, got one that starts with {parsed.drivername}://"
        )
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"application_name": SERVER_NAME, "connect_timeout": 5, **_KEEPALIVE},
    )
