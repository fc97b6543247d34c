"""The database behind an asyncio server: one writer thread that groups commits, and a few readers.

Work is a function of a connection. A write's result is given back only after its transaction is durable.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError

from gradwire_server.store.tables import SCHEMA_VERSION, metadata

T = TypeVar("T")

# Writes that wait while a commit is under way go into the next one together, at most this many.
_MOST_PER_COMMIT = 256
_READERS = 4


class StoreError(RuntimeError):
    """The database file is not one that this server can use."""


class Database:
    """Opens a SQLite file in WAL mode, and makes the tables that are not there yet."""

    def __init__(self, path: Path) -> None:
        self._engine = _sqlite_engine(path)
        self._create_or_check(path)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writes: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._writer.start()

    def _create_or_check(self, path: Path) -> None:
        try:
            with self._engine.begin() as connection:
                found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if found > SCHEMA_VERSION:
                    raise StoreError(
                        f"{path} was written by a newer gradwire (schema {found}, this one knows {SCHEMA_VERSION}): "
                        "run that version, or choose another --data"
                    )
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except DatabaseError as error:
            raise StoreError(f"{path} cannot be read as a database: {error.orig}. It is left as it is") from error

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
        self._engine.dispose()

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return work(connection)

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

    def _commit(self, batch: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                for work, done in batch:
                    try:
                        with connection.begin_nested():
                            outcomes.append((done, work(connection), None))
                    except Exception as error:
                        outcomes.append((done, None, error))
        except Exception as error:
            outcomes = [(done, None, error) for _, done in batch]
        for done, result, failure in outcomes:
            if not done.set_running_or_notify_cancel():
                continue
            if failure is None:
                done.set_result(result)
            else:
                done.set_exception(failure)


def _sqlite_engine(path: Path) -> Engine:
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
