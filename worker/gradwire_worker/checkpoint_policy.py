"""When to take a checkpoint: often enough to lose little, rarely enough to cost little."""

import time
from collections.abc import Callable

# At most this share of the time goes into checkpoints ...
_MOST_COST = 0.02
# ... and between two of them lie at least, and if the cost allows at most, these seconds.
_LEAST_SECONDS = 1.0
_MOST_SECONDS = 30.0


class CheckpointPolicy:
    """Decides after each epoch whether its weights are kept. A checkpoint's cost is measured as it is taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._interval = _LEAST_SECONDS

    def due(self) -> bool:
        """Whether the epoch that has just ended should be kept."""
        return self._clock() - self._last >= self._interval

    def taken(self, seconds: float) -> None:
        """Note that a checkpoint was taken, and the seconds that it took."""
        self._last = self._clock()
        self._interval = max(_LEAST_SECONDS, min(_MOST_SECONDS, seconds / _MOST_COST))
