"""The differences between the two kinds of stores, a SQLite file and a Postgres database."""

import os
import platform
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

# The Postgres SQLSTATE codes for a full disk, and for transactions that conflict or deadlock.
_DISK_FULL = "53100"
_CONFLICTS = ("40001", "40P01")
# The TCP keepalive times in seconds. With keepalive, silently lost connections are detected and replaced.
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}

# The name of this process as lease holder and in the Postgres connection list.
SERVER_NAME = f"gradwire server {platform.node()} {os.getpid()}"


class StoreError(RuntimeError):
    """This server cannot use the database."""


def open_engine(location: Path | str) -> Engine:
    """Return an engine for a SQLite file, or for a URL such as postgresql://user:password@host/database."""
    return _sqlite(location) if isinstance(location, Path) else _postgres(location)


def describe(location: Path | str) -> str:
    """Return the name of a database for messages: a path, or a URL without its password."""
    if isinstance(location, Path):
        return str(location)
    url = make_url(location)
    return url.difference_update_query(filter(_is_secret, url.query)).render_as_string()


def has_password(url: str) -> bool:
    """Whether the URL of a database contains a password in any of the places where libpq accepts one."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return False
    return bool(parsed.password) or any(map(_is_secret, parsed.query))


def _is_secret(key: str) -> bool:
    """Whether a parameter in the query of a URL is a password, for example `password` or `sslpassword`."""
    return key.lower().endswith("password")


def is_unavailable(error: BaseException) -> bool:
    """Return whether Postgres did not respond or closed the connection, so that the statement can be retried."""
    if not isinstance(error, DBAPIError) or is_disk_full(error) or is_conflict(error):
        return False
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    )


def is_disk_full(error: BaseException) -> bool:
    """Return whether the disk of the database is full."""
    if not isinstance(error, DBAPIError):
        return False
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0)
    return sqlite_code == sqlite3.SQLITE_FULL or _sqlstate(error) == _DISK_FULL


def is_conflict(error: BaseException) -> bool:
    """Return whether an error means that a transaction conflicted with another one and can be retried immediately."""
    return isinstance(error, IntegrityError) or (isinstance(error, DBAPIError) and _sqlstate(error) in _CONFLICTS)


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        # SQLAlchemy begins transactions instead of the driver. Savepoints require this.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            connection.execute(f"PRAGMA {pragma}")
        # LIKE is then case-sensitive, as in Postgres.
        connection.execute("PRAGMA case_sensitive_like=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # Without SQLAlchemy's cursors, this takes a tenth of the time.
        database: Any = connection.connection.driver_connection
        database.execute("BEGIN")

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
