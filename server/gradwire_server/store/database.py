"""The database of an asyncio server, with one writer thread that groups commits and a few reader threads.

Work is a function that takes a connection. The result of a write is returned only after its transaction is durable.
Several servers can share a Postgres database. A SQLite file belongs to one server.
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

from gradwire_server.errors import DiskFullError, StoreUnavailableError
from gradwire_server.store.dialects import (
    StoreError,
    describe,
    is_conflict,
    is_disk_full,
    is_unavailable,
    open_engine,
)
from gradwire_server.store.migrate import migrate
from gradwire_server.store.notifications import Notifications

_log = logging.getLogger(__name__)

T = TypeVar("T")

_Write = tuple[Callable[[Connection], Any], Future[Any]]
_Outcome = tuple[Future[Any], Any, BaseException | None]

# The time for which writes are retried while the database does not respond, and the time between two attempts.
_MAX_UNAVAILABLE_SECONDS = 60.0
_RETRY_SECONDS = 0.5
# Writes that arrive during a commit are grouped into the next commit. This is the maximum number in a group.
_MAX_WRITES_PER_COMMIT = 256
_READER_THREADS = 4
# The maximum number of attempts for conflicting work. If two servers insert the same row, one of them needs two
# attempts.
_MAX_TRIES = 5


class Database:
    """A SQLite file or a Postgres database. When it is opened, its tables are migrated to the current version."""

    def __init__(self, location: Path | str) -> None:
        """Open the database.

        Args:
            location: The path of a SQLite file, or a URL such as postgresql://user:password@host/database.

        Raises:
            StoreError: The database cannot be used.
        """
        self.shared = isinstance(location, str)
        self._engine = open_engine(location)
        name = describe(location)
        try:
            self._connection = self._engine.connect()
            migrate(self._connection, name)
        except DatabaseError as error:
            self._engine.dispose()
            raise StoreError(f"{name} cannot be used as the store: {error.orig}. It was not changed") from error
        self.notifications = Notifications(self._engine)
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="store-read")
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a savepoint of a transaction and return its result when the transaction is durable.

        Raises:
            StoreUnavailableError: The database did not respond for a minute.
            DiskFullError: The disk of the database is full.
        """
        done: Future[T] = Future()
        self._writes.put((work, done))
        return await asyncio.wrap_future(done)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a snapshot of durable data.

        Raises:
            StoreUnavailableError: The database does not respond.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def close(self) -> None:
        """Finish pending writes and close the database."""
        self.notifications.close()
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
            if is_unavailable(error):
                raise StoreUnavailableError from error
            raise

    def _run_in_one_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        """Run the batch in a transaction and run it again if the connection to the database is lost.

        The batch may have been committed just before the connection was lost. Repeating work is safe, because work
        always reads the stored data first.
        """
        deadline = time.monotonic() + _MAX_UNAVAILABLE_SECONDS
        tries = 0
        while True:
            try:
                if self._connection.invalidated or self._connection.closed:
                    self._connection = self._engine.connect()
                return self._try_transaction(batch)
            except DBAPIError as error:
                tries += 1
                if is_conflict(error) and tries < _MAX_TRIES:
                    continue
                if is_disk_full(error):
                    raise DiskFullError("the disk of the database is full") from error
                if not self._connection.closed:
                    self._connection.invalidate()
                    self._connection.close()
                if not is_unavailable(error):
                    raise
                if time.monotonic() > deadline:
                    raise StoreUnavailableError from error
                _log.warning("the database does not respond: %s", error.orig)
                time.sleep(_RETRY_SECONDS)

    def _try_transaction(self, batch: list[_Write]) -> list[_Outcome]:
        if len(batch) == 1:  # Without a savepoint, this is faster. Conflicts make the caller run the batch again.
            (work, done), *_ = batch
            with self._connection.begin():
                return [(done, work(self._connection), None)]
        outcomes: list[_Outcome] = []
        with self._connection.begin():
            for work, done in batch:
                try:
                    outcomes.append((done, self._run(work), None))
                except Exception as error:
                    # These errors affect the whole transaction, not only this work.
                    if is_unavailable(error) or is_disk_full(error):
                        raise
                    outcomes.append((done, None, error))
        return outcomes

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Run work in a savepoint and run it again if another server inserted the same row at the same time."""
        for _ in range(_MAX_TRIES):
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
                if len(batch) == _MAX_WRITES_PER_COMMIT or self._writes.empty():
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
