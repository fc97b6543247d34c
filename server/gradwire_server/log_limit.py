"""Limits what clients can cause to be logged, so that no client can fill a disk."""

import logging
import time
from dataclasses import dataclass

# The same message is logged at most this many times in a period of this many seconds.
MAX_REPEATS = 20
PERIOD_SECONDS = 10.0
# When there are more counts than this, the counts of earlier periods are forgotten.
_MAX_COUNTS = 1000


@dataclass
class _Count:
    """The number of times that a message occurred since a point in time."""

    since: float
    logged: int = 0
    dropped: int = 0


class RepeatLimit(logging.Filter):
    """Drops records whose message template was logged too often recently, and later reports how many were dropped.

    A record with the attribute `subject` is counted only together with other records of the same subject.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, int, object, object], _Count] = {}
        self._forget_at = _MAX_COUNTS

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        now = time.monotonic()
        # The key is not the message: some libraries put changing values into their templates, but log from the same
        # line.
        key = record.pathname, record.lineno, record.levelno, getattr(record, "subject", None)
        if len(self._counts) >= self._forget_at:
            self._forget(now)
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

    def _forget(self, now: float) -> None:
        """Forget the counts of earlier periods, unless they have dropped records to report."""
        self._counts = {
            key: count for key, count in self._counts.items() if count.dropped or now - count.since <= PERIOD_SECONDS
        }
        self._forget_at = max(_MAX_COUNTS, 2 * len(self._counts))


def is_about_the_server(record: logging.LogRecord) -> bool:
    """Return False for gRPC's traceback of a call whose client disconnected before it received the status."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("grpc.") and type(error).__name__ == "ExecuteBatchError")
