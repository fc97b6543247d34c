"""Publishes job changes to the watchers and subscribers on all servers."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection

from gradwire_server.store.notifications import JobChange, Notifications


class Subscriber(Protocol):
    """Receives all changes that start or stop jobs. The scheduler is a subscriber."""

    def on_change(self, change: JobChange) -> None:
        """React to a change."""

    def on_gap(self) -> None:
        """Read the store again, because changes may have been missed."""


# Receives every change, or None if changes may have been missed.
Observer = Callable[[JobChange | None], None]


class JobWatch:
    """Waits for changes to one job. If you read the store and then call `changed`, you cannot miss a change."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def changed(self) -> None:
        """Wait for a change since the previous call or, in the first call, since the watch began."""
        await self._event.wait()
        self._event.clear()

    def notify(self) -> None:
        """Wake the watcher."""
        self._event.set()


class JobNotifier:
    """Publishes job changes. A change is published only after it is durable."""

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications
        self._watches: defaultdict[int, set[JobWatch]] = defaultdict(set)
        self._subscribers: list[Subscriber] = []
        self._observers: list[Observer] = []
        # Whether the server is shutting down. All watches then end, and clients continue them on another server.
        self.closed = False

    def listen(self) -> None:
        """Start receiving changes from other servers."""
        loop = asyncio.get_running_loop()
        self._notifications.listen(
            on_change=lambda change: loop.call_soon_threadsafe(self.publish, change),
            on_gap=lambda: loop.call_soon_threadsafe(self.publish_gap),
        )

    def announce(self, connection: Connection, change: JobChange) -> None:
        """Send a change to the other servers when the transaction commits. Call `publish` after that."""
        self._notifications.send(connection, change)

    def publish(self, change: JobChange) -> None:
        """Notify the watchers of the job and, if the change starts, stops or finishes a job, the subscribers."""
        for watch in self._watches.get(change.job_key, ()):
            watch.notify()
        for observer in self._observers:
            observer(change)
        if change.start or change.stop or change.finish:
            for subscriber in self._subscribers:
                subscriber.on_change(change)

    def publish_gap(self) -> None:
        """Wake all watchers and subscribers, because changes may have been missed."""
        for watches in self._watches.values():
            for watch in watches:
                watch.notify()
        for observer in self._observers:
            observer(None)
        for subscriber in self._subscribers:
            subscriber.on_gap()

    def close(self) -> None:
        """End all watches, which then raise ShuttingDownError."""
        self.closed = True
        self.publish_gap()

    @contextmanager
    def watching(self, job_key: int) -> Iterator[JobWatch]:
        """Watch a job within the context."""
        watch = JobWatch()
        self._watches[job_key].add(watch)
        try:
            yield watch
        finally:
            self._watches[job_key].discard(watch)
            if not self._watches[job_key]:
                del self._watches[job_key]

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        """Deliver changes to a subscriber within the context."""
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Deliver all changes to an observer while the context lasts."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)
