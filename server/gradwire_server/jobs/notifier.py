"""Who is told when a job has changed: those who watch it, and the scheduler. Always after it is stored."""

import asyncio
from typing import Protocol

from gradwire_server.store.notifications import Change


class Listener(Protocol):
    """The scheduler, as seen from here."""

    def react(self, change: Change) -> None:
        """Start or stop what the change asks for."""

    def look_at_all(self) -> None:
        """Do what changes may have asked for that nobody heard."""


class Changes:
    """Signals by job. Take the signal first, then read the store, then wait: nothing can fall between."""

    def __init__(self) -> None:
        self._signals: dict[int, asyncio.Event] = {}
        # Told of every change that asks for something to start or to stop, while this server schedules.
        self.scheduler: Listener | None = None
        # Set when the server goes down: watches then end, and are taken up again at the next server.
        self.closed = False

    def signal(self, job: int) -> asyncio.Event:
        """Return the event that the job's next change will set."""
        return self._signals.setdefault(job, asyncio.Event())

    def hear(self, change: Change) -> None:
        """Wake everyone whom the change concerns; the next to ask for the job's signal get a new one."""
        signal = self._signals.pop(change.job, None)
        if signal is not None:
            signal.set()
        if self.scheduler is not None and (change.start or change.stop):
            self.scheduler.react(change)

    def look_at_all(self) -> None:
        """Let everyone look at the store: changes may have gone unheard."""
        for job in list(self._signals):
            self.hear(Change(job))
        if self.scheduler is not None:
            self.scheduler.look_at_all()

    def close(self) -> None:
        """Wake everyone, for the last time."""
        self.closed = True
        self.look_at_all()
