"""What servers on one Postgres tell each other: which job has changed. A SQLite file has one server and needs none."""

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
# How long the listener waits before it looks whether it should end, and before it tries to connect again.
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Change:
    """A job has changed: there are new events, and the scheduler may have to `start` or to `stop` something."""

    job: int
    start: bool = False
    stop: bool = False


class News:
    """Sends and hears changes by NOTIFY and LISTEN. What this server has sent itself, it does not hear."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own = secrets.token_hex(4)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def send(self, connection: Connection, change: Change) -> None:
        """Tell the other servers, as soon as the transaction is durable."""
        if connection.dialect.name == "postgresql":
            payload = f"{self._own} {change.job} {change.start:d} {change.stop:d}"
            connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": _CHANNEL, "payload": payload})

    def listen(self, hear: Callable[[Change], object], missed: Callable[[], object]) -> None:
        """Call `hear` for each change, from a thread of its own; `missed` whenever some may have gone unheard."""
        if self._engine.dialect.name == "postgresql":
            self._thread = threading.Thread(target=self._listen, args=(hear, missed), name="store-news", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self, hear: Callable[[Change], object], missed: Callable[[], object]) -> None:
        while not self._closing.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.execute(text(f"LISTEN {_CHANNEL}"))
                    missed()
                    driver: Any = connection.connection.driver_connection
                    while not self._closing.is_set():
                        for notification in driver.notifies(timeout=_LOOK_SECONDS):
                            self._pass_on(notification.payload, hear)
            except (DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
                _log.warning("no news from the database: %s", error)
                self._closing.wait(_LOOK_SECONDS)

    def _pass_on(self, payload: str, hear: Callable[[Change], object]) -> None:
        sender, job, start, stop = payload.split(" ")
        if sender != self._own:
            hear(Change(int(job), start == "1", stop == "1"))
