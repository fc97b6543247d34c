"""Queries for the lease, which determines the scheduling server. Each query is a function that takes a connection."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, extract, func, literal, select, update

from gradwire_server.store.tables import lease

# If a holder does not renew the lease for this long, it loses the lease.
LEASE_SECONDS = 6.0

# Every write of an attempt runs this statement, so it is built only once.
_TOKEN = select(lease.c.token).with_for_update(read=True)


@dataclass(frozen=True)
class Acquired:
    """A lease that was acquired.

    Attributes:
        token: Its fencing token.
        orderly: Whether its last holder ended in an orderly way.
    """

    token: int
    orderly: bool


def acquire(connection: Connection, holder: str, *, exclusive: bool) -> Acquired | None:
    """Acquire the lease if no server holds it. Returns None if another server holds it.

    Args:
        connection: A connection in a transaction.
        holder: The name of this server.
        exclusive: Whether no other server can use this database. An unexpired lease then belongs to a dead server.
    """
    free = select(lease.c.orderly).with_for_update()
    if not exclusive:
        free = free.where(lease.c.expires < _now(connection))
    orderly = connection.scalar(free)
    if orderly is None:
        return None
    statement = update(lease).values(
        token=lease.c.token + 1, holder=holder, expires=_now(connection) + literal(LEASE_SECONDS), orderly=0
    )
    token: int = connection.execute(statement.returning(lease.c.token)).scalar_one()
    return Acquired(token, bool(orderly))


def renew(connection: Connection, token: int) -> bool:
    """Extend the lease. Returns whether the token is still current."""
    statement = update(lease).where(lease.c.token == token).values(expires=_now(connection) + literal(LEASE_SECONDS))
    return connection.execute(statement).rowcount > 0


def release(connection: Connection, token: int) -> None:
    """Release the lease, so that another server can acquire it immediately."""
    connection.execute(update(lease).where(lease.c.token == token).values(expires=0))


def mark_orderly(connection: Connection, token: int) -> None:
    """Record that the holder of the lease ends in an orderly way."""
    connection.execute(update(lease).where(lease.c.token == token).values(orderly=1))


def is_current(connection: Connection, token: int) -> bool:
    """Return whether the token is current. Other servers cannot acquire the lease until the transaction ends."""
    return connection.scalar(_TOKEN) == token


def holder(connection: Connection) -> str:
    """Return the current or last holder of the lease."""
    return connection.scalars(select(lease.c.holder)).one()


def _now(connection: Connection) -> ColumnElement[Any]:
    """Return the time of the database, which all servers share. With SQLite, this is the time of the only server."""
    if connection.dialect.name == "postgresql":
        return extract("epoch", func.clock_timestamp())
    return literal(time.time())
