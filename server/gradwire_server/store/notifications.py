"""Notifications between servers that share a Postgres database. SQLite does not need them."""

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

_log = logging.getLogger(__name__)

_CHANNEL = "gradwire"
# The time that the listener waits before it checks whether to stop, and before it reconnects.
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class JobChange:
    """A stored change to a job.

    Attributes:
        job_key: The job, which has new events.
        start: Whether the scheduler may be able to start a job.
        stop: Whether the scheduler must stop the running attempt of the job.
        finish: Whether the running attempt must end the job after the current epoch.
    """

    job_key: int
    start: bool = False
    stop: bool = False
    finish: bool = False


class Notifications:
    """Sends and receives job changes with NOTIFY and LISTEN. A server does not receive its own changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sender = secrets.token_hex(4)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, connection: Connection, change: JobChange) -> None:
        """Notify the other servers when the transaction of the connection commits."""
        if connection.dialect.name == "postgresql":
            payload = f"{self._sender} {change.job_key} {change.start:d} {change.stop:d} {change.finish:d}"
            connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": _CHANNEL, "payload": payload})

    def listen(self, on_change: Callable[[JobChange], object], on_gap: Callable[[], object]) -> None:
        """Start receiving changes.

        Args:
            on_change: A function that is called for each change, on the thread of the listener.
            on_gap: A function that is called on the same thread after each connect, because earlier changes may have
                been missed.
        """
        if self._engine.dialect.name == "postgresql":
            self._thread = threading.Thread(
                target=self._listen, args=(on_change, on_gap), name="store-notifications", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop receiving changes."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, on_change: Callable[[JobChange], object], on_gap: Callable[[], object]) -> None:
        while not self._closing.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text(f"LISTEN {_CHANNEL}"))
                    on_gap()
                    driver: Any = connection.connection.driver_connection
                    while not self._closing.is_set():
                        for notification in driver.notifies(timeout=_POLL_SECONDS):
                            self._deliver(notification.payload, on_change, on_gap)
            except (DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
                _log.warning("cannot receive notifications from the database: %s", error)
                self._closing.wait(_POLL_SECONDS)

    def _deliver(self, payload: str, on_change: Callable[[JobChange], object], on_gap: Callable[[], object]) -> None:
        try:
            sender, job_key, *flags = payload.split(" ")
            start, stop, finish = (flag == "1" for flag in flags)
            change = JobChange(int(job_key), start, stop, finish)
        except ValueError:
            _log.warning("cannot read the notification %r. Another version of gradwire may have sent it", payload[:80])
            on_gap()
            return
        if sender != self._sender:
            on_change(change)
