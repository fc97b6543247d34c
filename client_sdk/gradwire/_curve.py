"""A curve over the epochs of a job. Its number of points is bounded, regardless of the number of epochs."""

import math
from collections.abc import Iterable

from gradwire_engine.formatting import finite_mean

# A screen shows no more. When a curve has this many points, each pair becomes one.
_MAX_POINTS = 512


class Curve:
    """The values of a metric, or the means of groups of 2, 4, 8 and so on consecutive values.

    Attributes:
        epochs: The last epoch of each group.
        values: The mean of the finite values of each group, or NaN if there are none.
    """

    def __init__(self, points: Iterable[tuple[int, float]] = ()) -> None:
        self.epochs: list[int] = []
        self.values: list[float] = []
        self._group_size = 1
        # For the last group: the number of values, the number of finite values, and their sum.
        self._count = self._finite = 0
        self._sum = 0.0
        for epoch, value in points:
            self.add(epoch, value)

    def __len__(self) -> int:
        return len(self.values)

    def add(self, epoch: int, value: float) -> None:
        """Add the value of an epoch, which comes after all earlier ones."""
        if self._count in (0, self._group_size):
            if len(self) == _MAX_POINTS:
                self._merge_pairs()
            self._count, self._finite, self._sum = 0, 0, 0.0
            self.epochs.append(epoch)
            self.values.append(math.nan)
        self._count += 1
        if math.isfinite(value):
            self._finite += 1
            self._sum += value
        self.epochs[-1] = epoch
        self.values[-1] = self._sum / self._finite if self._finite else math.nan

    def _merge_pairs(self) -> None:
        pairs = zip(self.values[::2], self.values[1::2], strict=True)
        self.values = [finite_mean(pair) for pair in pairs]
        self.epochs = self.epochs[1::2]
        self._group_size *= 2
