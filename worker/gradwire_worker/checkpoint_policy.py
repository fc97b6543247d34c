"""Decides when to take a checkpoint, to balance the work that a failure can lose against the cost of checkpoints."""

import time
from collections.abc import Callable

# The maximum share of the time to spend on checkpoints.
_MAX_COST_SHARE = 0.02
# The limits for the interval between checkpoints. Because of the upper limit, slow checkpoints can exceed the share.
_MIN_INTERVAL_SECONDS = 1.0
_MAX_INTERVAL_SECONDS = 30.0


class CheckpointPolicy:
    """Decides after each epoch whether to take a checkpoint, based on how long the last checkpoint took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the first interval.

        Args:
            clock: A function that returns the current time in seconds.
        """
        self._clock = clock
        self._last = clock()
        self._interval = _MIN_INTERVAL_SECONDS

    def is_due(self) -> bool:
        """Return whether to take a checkpoint after the epoch that just ended."""
        return self._clock() - self._last >= self._interval

    def record(self, seconds: float) -> None:
        """Record that a checkpoint was taken. `seconds` is the time that it took."""
        self._last = self._clock()
        self._interval = max(_MIN_INTERVAL_SECONDS, min(_MAX_INTERVAL_SECONDS, seconds / _MAX_COST_SHARE))
