"""This server's side of the lease: take it, keep it, give it back, and let nothing be written without it."""

import asyncio
import contextlib
import logging
from typing import NoReturn

from sqlalchemy import Connection

from gradwire_server.errors import ServiceError
from gradwire_server.store import lease_queries as lease
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import SERVER_NAME

_log = logging.getLogger(__name__)

# How often a server asks for the lease, and how often its holder renews it.
_TRY_SECONDS = 1.0
_RENEW_SECONDS = lease.LEASE_SECONDS / 3


class LeaseLostError(RuntimeError):
    """Another server schedules now: nothing more may be written for the attempts that this one follows."""


class Lease:
    """Held by the one server that schedules. Its token fences: `check` refuses the writes of one that lost it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # 0: not held; the database's tokens begin at 1.
        self._token = 0

    async def try_take(self) -> bool:
        """Take the lease if nobody holds it; whether this server holds it now."""
        alone = not self._database.shared
        token = await self._database.write(lambda connection: lease.take(connection, SERVER_NAME, alone=alone))
        self._token = token or 0
        return token is not None

    async def take(self) -> None:
        """Wait until this server holds the lease."""
        held = False
        while not held:
            await asyncio.sleep(_TRY_SECONDS)
            try:
                held = await self.try_take()
            except ServiceError as error:
                _log.warning("cannot ask for the lease: %s", error)

    async def keep(self) -> NoReturn:
        """Renew the lease as long as it can be; then LeaseLostError."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            # Nobody else can be on a SQLite file: its lease needs no care.
            if self._database.shared and not await self._renew():
                raise LeaseLostError(f"{await self.holder()} schedules now")

    async def give_back(self) -> None:
        """Let another server take the lease at once."""
        token, self._token = self._token, 0
        if token:
            # Where the database is away, the lease runs out by itself.
            with contextlib.suppress(ServiceError):
                await self._database.write(lambda connection: lease.give_back(connection, token))

    def check(self, connection: Connection) -> None:
        """LeaseLostError unless this server holds the lease, and will until the transaction ends."""
        if not self._token or not lease.is_held(connection, self._token):
            raise LeaseLostError("another server schedules now")

    async def holder(self) -> str:
        """Return who schedules."""
        return await self._database.read(lease.holder)

    async def _renew(self) -> bool:
        token = self._token
        try:
            return await self._database.write(lambda connection: lease.renew(connection, token))
        except ServiceError as error:
            # The database is away, for everyone: nobody can take the lease meanwhile.
            _log.warning("cannot renew the lease: %s", error)
            return True
