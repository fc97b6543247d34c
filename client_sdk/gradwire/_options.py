"""Defines TrainingOptions, which checks the training options when it is created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import get_args

import numpy as np

from gradwire._argument_names import SPEC, invalid
from gradwire._exceptions import FieldViolation
from gradwire._numbers import MAX_INT32, is_number, whole_number_problem
from gradwire._stopping import EarlyStopping, keep_policy
from gradwire._types import Device, DType
from gradwire_engine.losses import MSE, CrossEntropy, Loss
from gradwire_engine.optim import SGD
from gradwire_engine.stopping import MAX_SECONDS

_MAX_UINT64 = 2**64 - 1


@dataclass(frozen=True)
class TrainingOptions:
    """The training options, which are keyword arguments of both `fit` and `client.jobs.submit`.

    Attributes:
        loss: MSE() or CrossEntropy().
        optimizer: An SGD optimizer of the model.
        epochs: The number of passes over the training set. For a job that continues another job, this includes the
            epochs of the other job.
        batch_size: The number of rows per step. The last batch of an epoch can have fewer rows.
        shuffle: Whether to shuffle the rows before every epoch.
        seed: The seed for the row order and the weights of deferred layers. None draws a random seed, which is recorded
            in the history.
        dtype: The type of the weights and of the arithmetic. Default: the dtype of the model's weights, or "float32".
        device: "auto" uses a GPU if one is available.
        evaluate_every: Evaluate after every n-th epoch and after the last epoch.
        validation_split: Use this fraction of the rows, between 0 and 1, as the test set instead of training on them.
            As with Keras's validation_split, these are the last rows, taken before shuffling.
        classes: The names of the classes, in the order of the outputs; see `fit`.
        early_stopping: Ends training when a metric no longer improves.
        max_seconds: Ends training after the epoch in which the training time reaches this limit, in seconds; see `fit`.
        keep: The epochs whose weights the server keeps: "last", "best" or "every:N"; see `fit`.

    Raises:
        InvalidArgumentError: An option is out of range or has the wrong type.
    """

    loss: Loss
    optimizer: SGD
    epochs: int = 10
    batch_size: int = 64
    shuffle: bool = True
    seed: int | None = 0
    dtype: DType | None = None
    device: Device = "auto"
    evaluate_every: int = 1
    validation_split: float | None = None
    classes: Sequence[str] | None = None
    early_stopping: EarlyStopping | None = None
    max_seconds: float | None = None
    keep: str = "last"

    def __post_init__(self) -> None:
        found = [
            *_unless(isinstance(self.loss, MSE | CrossEntropy), "loss", "be MSE() or CrossEntropy()", self.loss),
            *_unless(isinstance(self.optimizer, SGD), "optimizer", "be SGD(model, lr=...)", self.optimizer),
            *_unless_whole("epochs", self.epochs, 1, MAX_INT32),
            *_unless_whole("batch_size", self.batch_size, 1, MAX_INT32),
            *_unless_whole("seed", 0 if self.seed is None else self.seed, 0, _MAX_UINT64),
            *_unless(self.dtype is None or _is_float(self.dtype), "dtype", f"be {_names(DType)}", self.dtype),
            *_unless(self.device in get_args(Device), "device", f"be {_names(Device)}", self.device),
            *_unless_whole("evaluate_every", self.evaluate_every, 1, MAX_INT32),
        ]
        split = self.validation_split
        if split is not None and not (isinstance(split, Real) and 0 < split < 1):
            description = f"must be a number between 0 and 1, for example 0.2, got {split!r}"
            found.append(FieldViolation("validation_split", description))
        if self.classes is not None and not _are_names(self.classes):
            description = f'must be the names of the classes, for example ["cat", "dog"], got {self.classes!r}'
            found.append(FieldViolation("classes", description))
        found += self._check_stopping()
        if found:
            raise invalid(found)

    def _check_stopping(self) -> list[FieldViolation]:
        stopping, seconds = self.early_stopping, self.max_seconds
        example = "be gw.EarlyStopping(...) or None"
        found = _unless(stopping is None or isinstance(stopping, EarlyStopping), "early_stopping", example, stopping)
        if seconds is not None and not (is_number(seconds) and 0 < seconds <= MAX_SECONDS):
            found += _unless(
                False, "max_seconds", f"be a number of seconds, 0 < max_seconds <= {MAX_SECONDS:.0e}", seconds
            )
        what = 'be "last", "best" or "every:N" with a whole number N of at least 1'
        return found + _unless(keep_policy(self.keep) is not None, "keep", what, self.keep)


def _names(literal: object) -> str:
    return " or ".join(f'"{name}"' for name in get_args(literal))


def _unless(holds: bool, field: str, what: str, got: object) -> list[FieldViolation]:
    return [] if holds else [FieldViolation(SPEC + field, f"must {what}, got {got!r}")]


def _unless_whole(field: str, value: object, smallest: int, largest: int) -> list[FieldViolation]:
    problem = whole_number_problem(value, smallest, largest)
    return [] if problem is None else _unless(False, field, problem, value)


def _are_names(classes: object) -> bool:
    is_list = isinstance(classes, Sequence | np.ndarray) and not isinstance(classes, str | bytes)
    return is_list and len(classes) > 0 and all(isinstance(name, str) for name in classes)  # type: ignore[arg-type,attr-defined]


def _is_float(dtype: object) -> bool:
    try:
        return np.dtype(dtype) in (np.float32, np.float64)  # type: ignore[call-overload]
    except TypeError:
        return False
