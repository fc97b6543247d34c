"""What is known about a job while it trains: its state, its curves, its best epoch, its speed and the time left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gradwire._curve import Curve
from gradwire._hints import hints
from gradwire._info import ENDED, state_of, stop_reason_of
from gradwire._metrics import SETS, metric_of
from gradwire._types import JobState, StopReason
from gradwire_engine.formatting import metrics_text, plural, seconds_text
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.training import Epoch

if TYPE_CHECKING:
    from gradwire_proto.v1.training_service_pb2 import Event

# The number of recent epochs that a display shows, and from which the speed is computed.
RECENT_EPOCHS = 15
_CURVES = tuple((which, name) for which in SETS for name in ("loss", "accuracy", "r2"))
_COLUMNS = tuple((which, name) for which in SETS for name in ("loss", "accuracy", "f1", "mean_absolute_error", "r2"))


class JobProgress:
    """The progress of a job.

    Args:
        name: The job's name, or None if it runs in this process.
        epochs: The number of epochs in total.
        rows: The number of training rows, if it is known.
        initial_epoch: The number of epochs that were complete before the job started.
        state: The state.
        monitor: The metric of early stopping, if it is known.

    Attributes:
        recent: The last epochs.
        best: The best epoch, see `best_key`, or None before the first epoch.
        count: The number of epochs of this job.
        seconds: Their duration.
        note: Why the job is waiting, its last warning, or why it failed. It can be empty.
        stop_reason: Why the job ended, if it succeeded.
    """

    def __init__(
        self,
        name: str | None,
        epochs: int,
        *,
        rows: int | None = None,
        initial_epoch: int = 0,
        state: JobState = "RUNNING",
        monitor: str = "",
    ) -> None:
        self.name, self.epochs, self.rows, self.state = name, epochs, rows, state
        self.recent: deque[Epoch] = deque(maxlen=RECENT_EPOCHS)
        self.best: Epoch | None = None
        self.count = 0
        self.seconds = 0.0
        self.note = ""
        self.stop_reason: StopReason | None = None
        self._monitor = monitor
        self._is_complete = True
        self._initial_epoch = initial_epoch
        self._running = Curve()
        self._curves = {key: Curve() for key in _CURVES}

    @classmethod
    def of(
        cls,
        epochs: Iterable[Epoch],
        name: str | None = None,
        stop_reason: StopReason | None = None,
        *,
        complete: bool = True,
    ) -> JobProgress:
        """Return the progress of a job that has ended after these epochs or, unless `complete`, a sample of them."""
        progress = cls(name, 0, state="SUCCEEDED")
        progress.stop_reason, progress._is_complete = stop_reason, complete
        for epoch in epochs:
            progress.add(epoch)
        progress.epochs = progress.last_epoch
        return progress

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch."""
        return self.recent[-1].epoch if self.recent else self._initial_epoch

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self.state in ENDED

    def add(self, epoch: Epoch) -> None:
        """Add an epoch that has just ended."""
        self.recent.append(epoch)
        self.count += 1
        self.seconds += epoch.seconds
        if self.best is None or best_key(epoch) < best_key(self.best):
            self.best = epoch
        self._running.add(epoch.epoch, epoch.running_loss)
        for (which, name), curve in self._curves.items():
            value = metric_of(epoch, which, name)
            if value is not None:
                curve.add(epoch.epoch, value)

    def apply(self, event: Event) -> Epoch | None:
        """Add an event of the job's log. Return the epoch, if the event is one."""
        kind = event.WhichOneof("kind")
        if kind == "epoch":
            epoch = epoch_of(event.epoch)
            self.add(epoch)
            return epoch
        if kind == "state_change":
            change = event.state_change
            self.state = state_of(change.state)
            self.stop_reason = stop_reason_of(change.stop_reason)
            self.note = change.error.message or ("" if self.state == "RUNNING" else change.message)
        elif kind == "warning":
            self.note = event.warning.message
        return None

    def loss(self, which: str) -> Curve:
        """Return the loss on "train" or "test". Without evaluated epochs, the loss on "train" is the running loss."""
        curve = self._curves[which, "loss"]
        return self._running if which == "train" and not curve else curve

    def curves(self, metric: str) -> dict[str, Curve]:
        """Return the curves of "loss", "accuracy" or "r2" that have points, keyed by "train" and "test"."""
        found = {which: self.loss(which) if metric == "loss" else self._curves[which, metric] for which in SETS}
        return {which: curve for which, curve in found.items() if curve}

    def rows_per_second(self) -> float | None:
        """Return the speed of training in the last epochs, or None if it is unknown."""
        seconds = sum(epoch.train_seconds for epoch in self.recent)
        return self.rows * len(self.recent) / seconds if self.rows and seconds > 0 else None

    def seconds_left(self) -> float | None:
        """Return an estimate of the time until the last epoch, or None if the job is not running."""
        if self.state != "RUNNING" or not self.recent or self.last_epoch >= self.epochs:
            return None
        return (self.epochs - self.last_epoch) * sum(epoch.seconds for epoch in self.recent) / len(self.recent)

    def epoch_text(self) -> str:
        """Return the number of the last epoch and of all epochs, for example "3/20"."""
        return f"{self.last_epoch}/{self.epochs}" if self.epochs else str(self.last_epoch)

    def hints(self) -> list[str]:
        """Return suggestions based on the curves; see `hints`."""
        last = next((epoch for epoch in reversed(self.recent) if epoch.train), None)
        return hints(self._running, self._curves["train", "loss"], self._curves["test", "loss"], last)

    def summary(self) -> list[str]:
        """Return the lines that are shown at the end: why it is the end, the best epoch, and a hint if there is one."""
        if self.best is None:
            return []
        done, best = f"{plural(self.count, 'epoch')} in {seconds_text(self.seconds)}.", "Best epoch"
        if not self._is_complete:
            done, best = f"A sample of {plural(self.count, 'epoch')}.", "Best of them"
        best += f": {self.best.epoch} ({metrics_text(self.best)})"
        return [" ".join([done, *self._ending(), best]), *self.hints()]

    def _ending(self) -> list[str]:
        """Return why the job ended before its last epoch, if that is known."""
        if self.stop_reason == "EARLY_STOPPING":
            return [f"Stopped early: {self._monitor or 'the monitored metric'} no longer improved."]
        if self.stop_reason == "TIME_LIMIT":
            return ["Stopped at the time limit."]
        return ["Stopped on request."] if self.stop_reason == "REQUESTED" else []


def metric_columns(epochs: Sequence[Epoch]) -> dict[str, tuple[str, str]]:
    """Return the set and the name of each metric that a table of these epochs shows, keyed by the heading."""
    return {
        f"{which} {name.replace('_', ' ')}": (which, name)
        for which, name in _COLUMNS
        if any(metric_of(epoch, which, name) is not None for epoch in epochs)
    }


def best_key(epoch: Epoch) -> tuple[int, float]:
    """Return a key that sorts epochs from good to bad, by the loss on the test set.

    Epochs without a test loss follow, sorted by the train loss, and then epochs that were not evaluated.
    """
    for rank, metrics in enumerate((epoch.test, epoch.train)):
        if metrics is not None:
            return rank, _rankable(metrics.loss)
    return 2, _rankable(epoch.running_loss)


def _rankable(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
