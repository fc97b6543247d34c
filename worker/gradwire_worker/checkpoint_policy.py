"""When to take a checkpoint: often enough to lose little work, rarely enough to cost little time."""

import time
from collections.abc import Callable

# At most this share of the time is spent on checkpoints.
_MAX_COST_SHARE = 0.02
# The bounds of the interval between checkpoints. A checkpoint that takes long can exceed the share.
_MIN_INTERVAL_SECONDS = 1.0
_MAX_INTERVAL_SECONDS = 30.0


class CheckpointPolicy:
    """Decides after each epoch whether to take a checkpoint, from the measured time of the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns a time in seconds."""
        self._clock = clock
        self._last = clock()
        self._interval = _MIN_INTERVAL_SECONDS

    def is_due(self) -> bool:
        """Whether to take a checkpoint after the epoch that just ended."""
        return self._clock() - self._last >= self._interval

    def record(self, seconds: float) -> None:
        """Record that a checkpoint was taken, and how long it took in seconds."""
        self._last = self._clock()
        self._interval = max(_MIN_INTERVAL_SECONDS, min(_MAX_INTERVAL_SECONDS, seconds / _MAX_COST_SHARE))
