"""EarlyStopping and the argument `keep`, which control when a job ends and which weights it keeps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from gradwire._argument_names import SPEC, invalid
from gradwire._exceptions import FieldViolation
from gradwire._numbers import is_number, whole_number_problem
from gradwire_proto.v1.spec_pb2 import EarlyStopping as EarlyStoppingMessage
from gradwire_proto.v1.spec_pb2 import KeepPolicy

_PATH = f"{SPEC}early_stopping."
_EVERY = re.compile(r"every:([1-9]\d{0,8})")


@dataclass(frozen=True)
class EarlyStopping:
    """Ends training when a metric no longer improves. The server decides this, so no client needs to be running.

    Attributes:
        monitor: The metric to watch: "running_loss", or "train." or "test." followed by the name of a field of
            `Metrics`, for example "test.accuracy". A loss or an error improves if it becomes smaller. All other metrics
            improve if they become larger.
        patience: Training ends after this many epochs in a row without an improvement. The maximum is the number of
            epochs. Epochs that `evaluate_every` skips do not count. An epoch in which the metric is NaN counts as an
            epoch without an improvement.
        min_delta: A change counts as an improvement only if it is larger than this.
        restore_best: Whether the trained model has the weights of the best epoch, regardless of why training ends,
            instead of those of the last epoch.

    Raises:
        InvalidArgumentError: A value is out of range or has the wrong type.
    """

    monitor: str = "test.loss"
    patience: int = 5
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        found = []
        if not (isinstance(self.monitor, str) and self.monitor):
            found.append(("monitor", f'must be the name of a metric, for example "test.loss", got {self.monitor!r}'))
        problem = whole_number_problem(self.patience, 1)
        if problem is not None:
            found.append(("patience", f"must {problem}, got {self.patience!r}"))
        if not (is_number(self.min_delta) and 0 <= self.min_delta < math.inf):
            found.append(("min_delta", f"must be a finite number of at least 0, got {self.min_delta!r}"))
        if not isinstance(self.restore_best, bool | np.bool_):
            found.append(("restore_best", f"must be True or False, got {self.restore_best!r}"))
        if found:
            raise invalid([FieldViolation(_PATH + name, text) for name, text in found])

    def message(self) -> EarlyStoppingMessage:
        """Return this as a message."""
        return EarlyStoppingMessage(
            monitor=self.monitor,
            patience=int(self.patience),
            min_delta=float(self.min_delta),
            restore_best=bool(self.restore_best),
        )


def keep_policy(keep: object) -> KeepPolicy | None:
    """Return the message for "last", "best" or "every:N", or None if the text is none of these."""
    if keep == "last":
        return KeepPolicy()
    if keep == "best":
        return KeepPolicy(best=True)
    every = _EVERY.fullmatch(keep) if isinstance(keep, str) else None
    return KeepPolicy(every=int(every[1])) if every else None
