"""Limits how often the log repeats a message, so that no client can fill a disk with it."""

import logging
import time
from dataclasses import dataclass

# The same message is logged at most this many times in a period of this many seconds.
MAX_REPEATS = 20
PERIOD_SECONDS = 10.0


@dataclass
class _Count:
    """The number of times that a message occurred since a point in time."""

    since: float
    logged: int = 0
    dropped: int = 0


class RepeatLimit(logging.Filter):
    """Drops records whose message template was logged too often recently, and later reports how many were dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int, object], _Count] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        now = time.monotonic()
        # The key is not the message: some libraries put changing values into their templates, but log from the same
        # line.
        key = record.pathname, record.lineno, record.levelno
        count = self._counts.setdefault(key, _Count(now))
        if now - count.since > PERIOD_SECONDS:
            self._counts[key] = _Count(now, logged=1)
            if count.dropped:
                record.msg = f"{record.getMessage()} ({count.dropped} messages like this one were not logged)"
                record.args = None
            return True
        if count.logged < MAX_REPEATS:
            count.logged += 1
            return True
        count.dropped += 1
        return False
