"""The queue of reports that the server has not acknowledged yet."""

import threading
import time

from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_worker.messages import Report

# Training pauses at this number of unacknowledged reports, to limit memory use while the server is unavailable.
_MAX_UNACKNOWLEDGED = 50_000
# Training also pauses before it adds weights if the unacknowledged weights have this size, in bytes.
_MAX_UNACKNOWLEDGED_BYTES = 64 << 20
# The limits for the reports that one poll returns. A poll always returns at least one report, regardless of its size.
_MAX_REPORTS_PER_POLL = 5_000
_MAX_BYTES_PER_POLL = 64 << 20
# The first reports of an attempt are sent immediately. After that, polls are at least _GATHER_SECONDS apart, unless
# there is a report other than an epoch, or at least _MANY_REPORTS reports. This is because a poll and a commit take as
# long as training many short epochs.
_IMMEDIATE_REPORTS = 20
# The first report says that training has started. It waits up to this long for the first epoch, so that one commit
# stores both, or even all reports of a very short job.
_FIRST_EPOCH_SECONDS = 0.005
_GATHER_SECONDS = 0.02
_MANY_REPORTS = 1_000


class Outbox:
    """A queue of reports. The training thread appends reports, and the server's polls take them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_capacity = threading.Condition(self._lock)
        self._has_reports = threading.Condition(self._lock)
        self._has_enough = threading.Condition(self._lock)
        self._reports: list[Report] = []
        # The size of the weights in these reports.
        self._weight_bytes = 0
        self._last = 0
        # The sequence number of the last report that is not an epoch, and the time of the last poll.
        self._last_urgent = 0
        self._taken_at = 0.0
        self._closed = False

    def add(self, event: Event, weights: bytes | None = None, class_counts: bytes | None = None) -> None:
        """Append a report. If too many reports are unacknowledged, wait until there is room or the outbox is closed."""
        with self._lock:
            self._has_capacity.wait_for(lambda: self._has_room(weights) or self._closed)
            self._last += 1
            self._weight_bytes += len(weights or b"")
            self._reports.append(Report(self._last, event.SerializeToString(), weights, class_counts))
            if not event.HasField("epoch"):
                self._last_urgent = self._last
            self._has_reports.notify()
            if self._is_enough():
                self._has_enough.notify()

    def take(self, after: int, timeout: float) -> list[Report]:
        """Delete the acknowledged reports and return the next reports.

        Args:
            after: The sequence number of the last acknowledged report, or 0.
            timeout: The maximum time to wait for a report, in seconds.
        """
        with self._lock:
            if self._reports:
                acknowledged = max(0, after - self._reports[0].sequence + 1)
                self._weight_bytes -= sum(len(report.weights or b"") for report in self._reports[:acknowledged])
                del self._reports[:acknowledged]
            self._has_capacity.notify_all()
            self._has_reports.wait_for(lambda: self._reports, timeout)
            if self._last == 1:
                self._has_reports.wait_for(lambda: self._last > 1, min(timeout, _FIRST_EPOCH_SECONDS))
            if self._last > _IMMEDIATE_REPORTS:
                self._has_enough.wait_for(
                    self._is_enough, max(0.0, self._taken_at + _GATHER_SECONDS - time.monotonic())
                )
            self._taken_at = time.monotonic()
            return self._batch()

    def close(self) -> None:
        """Close the outbox, so that `add` no longer waits for acknowledgements."""
        with self._lock:
            self._closed = True
            self._has_capacity.notify_all()

    def _has_room(self, weights: bytes | None) -> bool:
        if len(self._reports) >= _MAX_UNACKNOWLEDGED:
            return False
        # Weights of any size can be added if the outbox contains no others.
        return not (weights and self._weight_bytes) or self._weight_bytes + len(weights) <= _MAX_UNACKNOWLEDGED_BYTES

    def _is_enough(self) -> bool:
        """Return whether a poll should return now instead of waiting for more reports."""
        if not self._reports:
            return True
        return self._last_urgent >= self._reports[0].sequence or len(self._reports) >= _MANY_REPORTS

    def _batch(self) -> list[Report]:
        batch: list[Report] = []
        size = 0
        for report in self._reports[:_MAX_REPORTS_PER_POLL]:
            size += len(report.event) + len(report.weights or b"")
            if batch and size > _MAX_BYTES_PER_POLL:
                break
            batch.append(report)
        return batch
