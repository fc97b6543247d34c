"""Reports that the server has not acknowledged yet, and the wait for new ones."""

import threading
import time

from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_worker.messages import Report

# Training waits when this many reports are unacknowledged, so that a server that is away costs bounded memory.
_MOST_WAITING = 50_000
# One poll hands over at most this many reports, and stops after the first that would make it larger than this.
_MOST_PER_POLL = 5_000
_MOST_BYTES_PER_POLL = 64 << 20
# An attempt's first reports go out at once. Later polls lie so far apart, unless something other than an epoch is there
# to tell or there is much of it: a poll and a commit cost as much as the training of many short epochs.
_PROMPT_REPORTS = 20
_GATHER_SECONDS = 0.02
_MUCH = 1_000


class Outbox:
    """A queue between the training thread, which adds, and the server's polls, which take after a sequence number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._first = threading.Condition(self._lock)
        self._enough = threading.Condition(self._lock)
        self._reports: list[Report] = []
        self._last = 0
        # The last report that is not only an epoch, and when a poll last took something.
        self._last_urgent = 0
        self._taken_at = 0.0
        self._closed = False

    def add(self, event: Event, weights: bytes | None = None) -> None:
        """Append a report; waits while too many are unacknowledged, unless the outbox is closed."""
        with self._lock:
            self._room.wait_for(lambda: len(self._reports) < _MOST_WAITING or self._closed)
            self._last += 1
            self._reports.append(Report(self._last, event.SerializeToString(), weights))
            if not event.HasField("epoch"):
                self._last_urgent = self._last
            self._first.notify()
            if self._is_enough():
                self._enough.notify()

    def take(self, after: int, timeout: float) -> list[Report]:
        """Forget what is acknowledged, up to `after`, and return what comes next; waits up to `timeout` seconds."""
        with self._lock:
            if self._reports:
                del self._reports[: max(0, after - self._reports[0].sequence + 1)]
            self._room.notify_all()
            self._first.wait_for(lambda: self._reports, timeout)
            if self._last > _PROMPT_REPORTS:
                self._enough.wait_for(self._is_enough, max(0.0, self._taken_at + _GATHER_SECONDS - time.monotonic()))
            self._taken_at = time.monotonic()
            return self._batch()

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._lock:
            self._closed = True
            self._room.notify_all()

    def _is_enough(self) -> bool:
        """Whether a poll that has gathered so far should gather no more."""
        if not self._reports:
            return True
        return self._last_urgent >= self._reports[0].sequence or len(self._reports) >= _MUCH

    def _batch(self) -> list[Report]:
        batch: list[Report] = []
        size = 0
        for report in self._reports[:_MOST_PER_POLL]:
            size += len(report.event) + len(report.weights or b"")
            if batch and size > _MOST_BYTES_PER_POLL:
                break
            batch.append(report)
        return batch
