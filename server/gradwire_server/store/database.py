"""The database behind an asyncio server: one writer thread that groups commits, and a few readers.

Work is a function of a connection. A write's result is given back only after its transaction is durable.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import DatabaseError, DBAPIError

from gradwire_server.errors import unavailable
from gradwire_server.store.engines import StoreError, claim, describe, is_away, open_engine
from gradwire_server.store.tables import SCHEMA_VERSION, metadata, schema

_log = logging.getLogger(__name__)

T = TypeVar("T")

_Write = tuple[Callable[[Connection], Any], Future[Any]]
_Outcome = tuple[Future[Any], Any, BaseException | None]

# How long writes wait for a database that is away, and how often they try.
_MOST_AWAY_SECONDS = 60.0
_RETRY_SECONDS = 0.5
# Writes that wait while a commit is under way go into the next one together, at most this many.
_MOST_PER_COMMIT = 256
_READERS = 4


class Database:
    """The store in a SQLite file or in Postgres; makes the tables that are not there yet."""

    def __init__(self, location: Path | str) -> None:
        """Open a file, or a URL as postgresql://user:password@host/database; StoreError says what is wrong with it."""
        self._engine = open_engine(location)
        try:
            # The connection of the writer thread, which holds the claim on the database.
            self._connection = self._open_for_writing()
            self._create_or_check(describe(location))
        except DatabaseError as error:
            self._engine.dispose()
            name = describe(location)
            raise StoreError(f"{name} cannot be used as the store: {error.orig}. It is left as it is") from error
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    def _open_for_writing(self) -> Connection:
        connection = self._engine.connect()
        claim(connection)
        return connection

    def _create_or_check(self, name: str) -> None:
        with self._connection.begin():
            found = None
            if inspect(self._connection).has_table(schema.name):
                found = self._connection.scalar(select(schema.c.version))
            if found is not None and found > SCHEMA_VERSION:
                raise StoreError(
                    f"{name} was written by a newer gradwire (schema {found}, this one knows {SCHEMA_VERSION}): "
                    "run that version, or choose another place"
                )
            metadata.create_all(self._connection)
            if found is None:
                self._connection.execute(insert(schema).values(version=SCHEMA_VERSION))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction of its own, and return its result once it is durable."""
        done: Future[T] = Future()
        self._writes.put((work, done))
        return await asyncio.wrap_future(done)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot of what is durable."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def close(self) -> None:
        """Finish the writes that were asked for, and close the file."""
        self._writes.put(None)
        self._writer.join()
        self._readers.shutdown()
        self._connection.close()
        self._engine.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            if is_away(error):
                raise unavailable("STORE_AWAY", "the database does not answer", retry_seconds=1) from error
            raise

    def _run_in_one_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        """Run the batch; where the database went away, wait for it and run it again.

        It may have been committed just before that. Work looks at what is stored, so doing it twice changes nothing.
        """
        deadline = time.monotonic() + _MOST_AWAY_SECONDS
        while True:
            try:
                if self._connection.invalidated or self._connection.closed:
                    self._connection = self._open_for_writing()
                return self._try_transaction(batch)
            except DBAPIError as error:
                self._connection.invalidate()
                self._connection.close()
                if not is_away(error) or time.monotonic() > deadline:
                    raise
                _log.warning("the database is away: %s", error.orig)
                time.sleep(_RETRY_SECONDS)

    def _try_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        with self._connection.begin():
            for work, done in batch:
                try:
                    with self._connection.begin_nested():
                        outcomes.append((done, work(self._connection), None))
                except Exception as error:
                    if is_away(error):
                        raise
                    outcomes.append((done, None, error))
        return outcomes

    def _write_loop(self) -> None:
        open_ = True
        while open_:
            batch = []
            item = self._writes.get()
            while item is not None:
                batch.append(item)
                if len(batch) == _MOST_PER_COMMIT or self._writes.empty():
                    break
                item = self._writes.get()
            open_ = item is not None
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[_Write]) -> None:
        try:
            outcomes = self._run_in_one_transaction(batch)
        except Exception as error:
            outcomes = [(done, None, error) for _, done in batch]
        for done, result, failure in outcomes:
            if not done.set_running_or_notify_cancel():
                continue
            if failure is None:
                done.set_result(result)
            else:
                done.set_exception(failure)
