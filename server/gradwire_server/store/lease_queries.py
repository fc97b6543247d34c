"""The lease in the database: who schedules, of the servers that share it. Functions of a connection."""

import time
from typing import Any

from sqlalchemy import ColumnElement, Connection, extract, func, literal, select, update

from gradwire_server.store.tables import lease

# A holder that says nothing for so long has lost the lease.
LEASE_SECONDS = 6.0


def take(connection: Connection, holder: str, *, alone: bool) -> int | None:
    """Take the lease if nobody holds it, and return its new fencing token; else None.

    alone: no other server can be on this database, so that what an earlier one has left there binds nobody.
    """
    statement = update(lease).values(
        token=lease.c.token + 1, holder=holder, expires=_now(connection) + literal(LEASE_SECONDS)
    )
    if not alone:
        statement = statement.where(lease.c.expires < _now(connection))
    return connection.scalar(statement.returning(lease.c.token))


def renew(connection: Connection, token: int) -> bool:
    """Hold the lease for longer; whether it was still this token's."""
    statement = update(lease).where(lease.c.token == token).values(expires=_now(connection) + literal(LEASE_SECONDS))
    return connection.execute(statement).rowcount > 0


def give_back(connection: Connection, token: int) -> None:
    """Let the next server take the lease at once."""
    connection.execute(update(lease).where(lease.c.token == token).values(expires=0))


def is_held(connection: Connection, token: int) -> bool:
    """Whether nobody has taken the lease since; until this transaction ends, nobody can."""
    return connection.scalar(select(lease.c.token).with_for_update(read=True)) == token


def holder(connection: Connection) -> str:
    """Return who holds the lease, or has held it last."""
    return connection.scalars(select(lease.c.holder)).one()


def _now(connection: Connection) -> ColumnElement[Any]:
    """The database's clock, the only one that all servers share. SQLite runs in its server, and has the server's."""
    if connection.dialect.name == "postgresql":
        return extract("epoch", func.clock_timestamp())
    return literal(time.time())
