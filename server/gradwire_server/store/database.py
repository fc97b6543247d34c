"""The database behind an asyncio server: one writer thread that groups commits, and a few readers.

Work is a function of a connection. A write's result is given back only after its transaction is durable. Several
servers can share a Postgres; a SQLite file belongs to one.
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

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError

from gradwire_server.errors import ServiceError, disk_full, unavailable
from gradwire_server.store.dialects import StoreError, describe, is_away, is_conflict, is_full, open_engine
from gradwire_server.store.migrate import migrate
from gradwire_server.store.notifications import News

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
# How often work is tried that another server's came between; two servers that insert the same need two.
_MOST_TRIES = 5


class Database:
    """The store in a SQLite file or in Postgres; brings its tables to what this version knows."""

    def __init__(self, location: Path | str) -> None:
        """Open a file, or a URL as postgresql://user:password@host/database; StoreError says what is wrong with it."""
        self.shared = isinstance(location, str)
        self._engine = open_engine(location)
        name = describe(location)
        try:
            self._connection = self._engine.connect()
            migrate(self._connection, name)
        except DatabaseError as error:
            self._engine.dispose()
            raise StoreError(f"{name} cannot be used as the store: {error.orig}. It is left as it is") from error
        self.news = News(self._engine)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

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
        self.news.close()
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
                raise _away() from error
            raise

    def _run_in_one_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        """Run the batch; where the database went away, wait for it and run it again.

        It may have been committed just before that. Work looks at what is stored, so doing it twice changes nothing.
        """
        deadline = time.monotonic() + _MOST_AWAY_SECONDS
        tries = 0
        while True:
            try:
                if self._connection.invalidated or self._connection.closed:
                    self._connection = self._engine.connect()
                return self._try_transaction(batch)
            except DBAPIError as error:
                tries += 1
                if is_conflict(error) and tries < _MOST_TRIES:
                    continue
                if is_full(error):
                    raise disk_full("the disk of the server's database is full") from error
                if not self._connection.closed:
                    self._connection.invalidate()
                    self._connection.close()
                if not is_away(error):
                    raise
                if time.monotonic() > deadline:
                    raise _away() from error
                _log.warning("the database is away: %s", error.orig)
                time.sleep(_RETRY_SECONDS)

    def _try_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        with self._connection.begin():
            for work, done in batch:
                try:
                    outcomes.append((done, self._run(work), None))
                except Exception as error:
                    # These end the whole transaction, not the work that met them.
                    if is_away(error) or is_full(error):
                        raise
                    outcomes.append((done, None, error))
        return outcomes

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Run work in a savepoint, again if another server has just inserted what it wants to insert."""
        for _ in range(_MOST_TRIES):
            try:
                with self._connection.begin_nested():
                    return work(self._connection)
            except IntegrityError as error:
                conflict = error
        raise conflict

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


def _away() -> ServiceError:
    return unavailable("STORE_AWAY", "the database does not answer", retry_seconds=1)
