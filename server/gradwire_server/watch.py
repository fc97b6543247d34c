"""Wakes whoever waits for something new on a job, after it is stored."""

import asyncio


class Watchers:
    """Signals by job. Take the signal first, then read the store, then wait: nothing can fall between."""

    def __init__(self) -> None:
        self._signals: dict[int, asyncio.Event] = {}
        # Set when the server goes down: watches then end, and are taken up again at the next server.
        self.closed = False

    def signal(self, job: int) -> asyncio.Event:
        """Return the event that the job's next change will set."""
        return self._signals.setdefault(job, asyncio.Event())

    def notify(self, job: int) -> None:
        """Wake everyone who holds the job's signal; the next to ask get a new one."""
        signal = self._signals.pop(job, None)
        if signal is not None:
            signal.set()

    def close(self) -> None:
        """Wake everyone, for the last time."""
        self.closed = True
        for job in list(self._signals):
            self.notify(job)
