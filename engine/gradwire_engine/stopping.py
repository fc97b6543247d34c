"""Decides when training stops early, which epoch is the best, and which weights are kept.

All decisions except a stop on request depend only on the epochs so far, so training makes the same decisions no matter
which epoch it continues from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gradwire_engine.backend import Array
    from gradwire_engine.training import Epoch

StopReason = Literal["ALL_EPOCHS", "EARLY_STOPPING", "TIME_LIMIT", "REQUESTED"]

RUNNING_LOSS = "running_loss"
# The longest time limit, about 30 years.
MAX_SECONDS = 1e9
# The metrics for which a smaller value is better.
_ERRORS = ("loss", "running_loss", "mean_absolute_error")


@dataclass(frozen=True)
class StoppingRules:
    """When training stops, and which weights are kept. Without a monitor, there is no best epoch.

    Attributes:
        epochs: The number of epochs in total.
        monitor: The metric that determines the best epoch: "running_loss", or "train." or "test." followed by the name
            of a metric.
        min_delta: A change counts as an improvement only if it is larger than this.
        patience: Training stops after this many epochs in a row without an improvement. None: no limit.
        restore_best: Whether the result is the weights of the best epoch instead of those of the last epoch.
        max_seconds: Training stops when the training time reaches this limit, in seconds. None: no limit.
        keep_best: Whether the weights of the best epoch are kept.
        keep_every: The weights after every n-th epoch are kept, where n is this number. 0 keeps none of them.
    """

    epochs: int
    monitor: str | None = None
    min_delta: float = 0.0
    patience: int | None = None
    restore_best: bool = False
    max_seconds: float | None = None
    keep_best: bool = False
    keep_every: int = 0

    @property
    def needs_best(self) -> bool:
        """Whether the weights of the best epoch are needed."""
        return self.restore_best or self.keep_best

    def keeps_number(self, epoch: int) -> bool:
        """Return whether the weights after an epoch are kept because of its number."""
        return self.keep_every > 0 and epoch % self.keep_every == 0


@dataclass(frozen=True)
class Progress:
    """What the decisions depend on: a summary of the epochs so far.

    Attributes:
        epoch: The number of the last epoch, or 0.
        best_epoch: The number of the best epoch, or 0.
        best_value: The value of the monitored metric in the best epoch.
        without_improvement: The number of epochs in a row without an improvement.
        seconds: The training time, in seconds.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_value: float = math.nan
    without_improvement: int = 0
    seconds: float = 0.0

    def after(self, epoch: Epoch, rules: StoppingRules) -> Progress:
        """Return the progress after the next epoch. An epoch that is repeated changes nothing."""
        if epoch.epoch <= self.epoch:
            return self
        value = None if rules.monitor is None else monitored_value(epoch, rules.monitor)
        return self.after_value(epoch.epoch, epoch.seconds, value, rules)

    def after_value(self, epoch: int, seconds: float, value: float | None, rules: StoppingRules) -> Progress:
        """Return the progress after the next epoch.

        Args:
            epoch: The number of the epoch.
            seconds: The duration of the epoch, in seconds.
            value: The value of the monitored metric; see `monitored_value`.
            rules: The rules.
        """
        seconds += self.seconds
        if rules.monitor is None or value is None:
            return Progress(epoch, self.best_epoch, self.best_value, self.without_improvement, seconds)
        if self._is_improvement(value, rules.monitor, rules.min_delta):
            return Progress(epoch, epoch, value, 0, seconds)
        return Progress(epoch, self.best_epoch, self.best_value, self.without_improvement + 1, seconds)

    def stop_reason(self, rules: StoppingRules, *, requested: bool = False) -> StopReason | None:
        """Return why training stops after the last epoch, or None if it continues.

        Args:
            rules: The rules.
            requested: Whether a stop was requested.
        """
        if self.epoch >= rules.epochs:
            return "ALL_EPOCHS"
        if rules.patience is not None and self.without_improvement >= rules.patience:
            return "EARLY_STOPPING"
        if rules.max_seconds is not None and self.seconds >= rules.max_seconds:
            return "TIME_LIMIT"
        return "REQUESTED" if requested else None

    def result_epoch(self, rules: StoppingRules) -> int:
        """Return the epoch whose weights are the result, if training stops now."""
        return self.best_epoch if rules.restore_best and self.best_epoch else self.epoch

    def _is_improvement(self, value: float, monitor: str, min_delta: float) -> bool:
        if not self.best_epoch:
            return not math.isnan(value)
        # A comparison with NaN is false, so NaN is never an improvement.
        if monitor.rpartition(".")[2] in _ERRORS:
            return value < self.best_value - min_delta
        return value > self.best_value + min_delta


def monitored_value(epoch: Epoch, monitor: str) -> float | None:
    """Return the value of a metric in an epoch: NaN if it is absent, or None if the epoch was not evaluated."""
    if monitor == RUNNING_LOSS:
        return epoch.running_loss
    which, _, name = monitor.partition(".")
    metrics = epoch.train if which == "train" else epoch.test
    if metrics is None:
        return None
    value: float | None = getattr(metrics, name)
    return math.nan if value is None else value


class TrainingControl:
    """Tracks training, which can continue from a checkpoint, and holds the weights of the best epoch.

    Attributes:
        rules: The rules.
        progress: The progress so far. At the start, it already includes the epochs after the checkpoint, which are
            repeated.
    """

    def __init__(self, rules: StoppingRules, progress: Progress | None = None) -> None:
        self.rules = rules
        self.progress = progress or Progress()
        self._best: tuple[int, Array] | None = None

    def add(self, epoch: Epoch, weights: Callable[[], Array]) -> None:
        """Record an epoch.

        Args:
            epoch: The epoch.
            weights: A function that returns a copy of the weights after the epoch.
        """
        self.progress = self.progress.after(epoch, self.rules)
        if self.is_best(epoch.epoch):
            self._best = epoch.epoch, weights()

    def is_best(self, epoch: int) -> bool:
        """Return whether an epoch is the best so far, and its weights are therefore kept."""
        return self.rules.needs_best and epoch == self.progress.best_epoch

    def stop_reason(self, epoch: int, *, requested: bool = False) -> StopReason | None:
        """Return why training stops after an epoch, or None if it continues. While epochs are repeated, it continues.

        Args:
            epoch: The number of the last epoch.
            requested: Whether a stop was requested.
        """
        if epoch < self.progress.epoch or not self.progress.epoch:
            return None
        return self.progress.stop_reason(self.rules, requested=requested)

    def take_best(self) -> tuple[int, Array] | None:
        """Return the best epoch and its weights, or None if they were already taken or their epoch was not recorded."""
        best, self._best = self._best, None
        return best
