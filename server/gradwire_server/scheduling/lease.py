"""Acquires, renews and releases the lease of the scheduling server, and rejects writes without the lease."""

import asyncio
import contextlib
import logging
from typing import NoReturn

from sqlalchemy import Connection

from gradwire_server.errors import DomainError
from gradwire_server.store import lease_queries
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import SERVER_NAME

_log = logging.getLogger(__name__)

# The interval at which servers try to acquire the lease, and at which its holder renews it.
_TRY_SECONDS = 1.0
# The time that a server waits for the database during shutdown.
_MARK_SECONDS = 2.0
_RENEW_SECONDS = lease_queries.LEASE_SECONDS / 3


class LeaseLostError(RuntimeError):
    """Another server now holds the lease. This server must stop recording attempts."""


class Lease:
    """A lease that one server at a time can hold. A fencing token lets `check` reject writes by former holders."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # The fencing token, or 0 if this server does not hold the lease. Tokens in the database start at 1.
        self._token = 0
        # The token that this process held last.
        self._last_token = 0
        self._after_crash = False

    @property
    def after_crash(self) -> bool:
        """Whether the server that held the lease before this one crashed."""
        return self._after_crash

    async def try_acquire(self) -> bool:
        """Acquire the lease if no server holds it. Returns whether this server now holds the lease."""
        exclusive = not self._database.shared
        acquired = await self._database.write(
            lambda connection: lease_queries.acquire(connection, SERVER_NAME, exclusive=exclusive)
        )
        if acquired is None:
            return False
        # This process has not crashed, even if it could not release the lease.
        self._after_crash = not acquired.orderly and acquired.token != self._last_token + 1
        self._token = self._last_token = acquired.token
        return True

    async def acquire(self) -> None:
        """Wait until this server holds the lease."""
        held = False
        while not held:
            await asyncio.sleep(_TRY_SECONDS)
            try:
                held = await self.try_acquire()
            except DomainError as error:
                _log.warning("cannot acquire the lease: %s", error)

    async def keep_renewing(self) -> NoReturn:
        """Renew the lease regularly. Raises LeaseLostError if another server holds the lease."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            # Only one server can use a SQLite file, so the lease does not have to be renewed.
            if self._database.shared and not await self._renew():
                raise LeaseLostError(f"{await self.holder()} now holds the lease")

    async def mark_orderly(self) -> None:
        """Record that this server stops scheduling, or exits, in an orderly way."""
        token = self._token
        if token:
            # If the database does not respond, the next server assumes that this one crashed.
            with contextlib.suppress(DomainError, TimeoutError):
                async with asyncio.timeout(_MARK_SECONDS):
                    await self._database.write(lambda connection: lease_queries.mark_orderly(connection, token))

    async def release(self) -> None:
        """Release the lease, so that another server can acquire it immediately."""
        token, self._token = self._token, 0
        if token:
            # If the database does not respond, the lease expires automatically.
            with contextlib.suppress(DomainError):
                await self._database.write(lambda connection: lease_queries.release(connection, token))

    def check(self, connection: Connection) -> None:
        """Raise LeaseLostError unless this server holds the lease. The lease is locked until the transaction ends."""
        if not self._token or not lease_queries.is_current(connection, self._token):
            raise LeaseLostError("another server now holds the lease")

    async def holder(self) -> str:
        """Return the current or last holder of the lease."""
        return await self._database.read(lease_queries.holder)

    async def _renew(self) -> bool:
        token = self._token
        try:
            return await self._database.write(lambda connection: lease_queries.renew(connection, token))
        except DomainError as error:
            # Assume for now that this server still holds the lease. If another server acquires it, the next renewal
            # fails and `check` rejects writes.
            _log.warning("cannot renew the lease: %s", error)
            return True
