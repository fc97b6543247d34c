"""Reports that the server has not acknowledged yet, and the wait for new ones."""

import threading
import time

from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_worker.reports import Report

# Training waits when this many reports are unacknowledged, so that a server that is away costs bounded memory.
_MOST_WAITING = 50_000
# One poll hands over at most this many reports, and stops after the first that would make it larger than this.
_MOST_PER_POLL = 5_000
_MOST_BYTES_PER_POLL = 64 << 20


class Outbox:
    """A queue between the training thread, which adds, and the server's polls, which take after a sequence number."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reports: list[Report] = []
        self._last = 0
        self._closed = False

    def add(self, event: Event, weights: bytes | None = None) -> None:
        """Append a report; waits while too many are unacknowledged, unless the outbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._reports) < _MOST_WAITING or self._closed)
            self._last += 1
            self._reports.append(Report(self._last, event.SerializeToString(), weights))
            self._changed.notify_all()

    def take(self, after: int, timeout: float) -> list[Report]:
        """Forget what is acknowledged, up to `after`, and return what comes next; waits up to `timeout` seconds."""
        with self._changed:
            acknowledged = sum(1 for report in self._reports if report.sequence <= after)
            del self._reports[:acknowledged]
            self._changed.notify_all()
            deadline = time.monotonic() + timeout
            while not self._reports and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            return self._batch()

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batch(self) -> list[Report]:
        batch: list[Report] = []
        size = 0
        for report in self._reports[:_MOST_PER_POLL]:
            size += len(report.event) + len(report.weights or b"")
            if batch and size > _MOST_BYTES_PER_POLL:
                break
            batch.append(report)
        return batch
