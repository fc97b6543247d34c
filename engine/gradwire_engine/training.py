"""The epoch loop: a plan, data and a configuration in, a stream of epochs out. It can begin after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradwire_engine.metrics import Metrics
from gradwire_engine.randomness import Purpose, job_generator

if TYPE_CHECKING:  # A client reads epochs without loading the plans.
    from numpy.typing import NDArray

    from gradwire_engine.examples import Examples
    from gradwire_engine.plans.base import Plan

# How often a long epoch looks whether it should stop.
_STOP_CHECK_SECONDS = 0.1


class StoppedError(Exception):
    """Training was asked to stop; the epoch that was under way is lost."""


class LossNotFiniteError(ArithmeticError):
    """The loss became NaN or infinite."""

    def __init__(self, epoch: int, learning_rate: float) -> None:
        super().__init__(
            f"the loss is not a finite number any more in epoch {epoch} with lr={learning_rate:g}; "
            f"try a smaller lr, {learning_rate / 10:g} for instance, or inputs scaled to about 0..1"
        )
        self.epoch = epoch


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; each field as in JobSpec."""

    epochs: int
    batch_size: int
    learning_rate: float
    shuffle: bool
    seed: int
    evaluate_every: int = 1


@dataclass(frozen=True)
class Epoch:
    """What an epoch, 1 or later, came to. train and test are None where it was not evaluated."""

    epoch: int
    running_loss: float
    train: Metrics | None
    test: Metrics | None
    train_seconds: float
    evaluate_seconds: float

    @property
    def seconds(self) -> float:
        """The time of the epoch, training and evaluation."""
        return self.train_seconds + self.evaluate_seconds


def train(
    plan: Plan,
    config: TrainingConfig,
    train_set: Examples,
    test_set: Examples | None = None,
    *,
    epochs_done: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Epoch]:
    """Train from after epoch `epochs_done` to config.epochs, and yield each epoch as it ends.

    While an epoch is being looked at, plan.weights() are the weights after it. Raises LossNotFiniteError, and
    StoppedError soon after should_stop() has become true.
    """
    placed_train = plan.place(train_set)
    placed_test = plan.place(test_set) if test_set else None
    pace = _Pace()
    for number in range(epochs_done + 1, config.epochs + 1):
        started = time.perf_counter()
        order = _row_order(config, train_set.rows, number)
        running_loss = _train_epoch(plan, placed_train, order, config, pace, should_stop)
        trained = time.perf_counter()
        train_metrics = test_metrics = None
        if number % config.evaluate_every == 0 or number == config.epochs:
            train_metrics = plan.evaluate(placed_train)
            test_metrics = plan.evaluate(placed_test) if placed_test else None
        evaluated = time.perf_counter()
        losses = [running_loss, *(metrics.loss for metrics in (train_metrics, test_metrics) if metrics)]
        if not all(map(math.isfinite, losses)):
            raise LossNotFiniteError(number, config.learning_rate)
        yield Epoch(number, running_loss, train_metrics, test_metrics, trained - started, evaluated - trained)


def _row_order(config: TrainingConfig, rows: int, epoch: int) -> NDArray[np.int64]:
    if not config.shuffle:
        return np.arange(rows)
    return job_generator(config.seed, Purpose.ROW_ORDER, epoch).permutation(rows)


@dataclass
class _Pace:
    """How many steps a plan runs between two looks at should_stop(); grows to what the machine does in that time."""

    steps: int = 1


def _train_epoch(
    plan: Plan,
    placed: object,
    order: NDArray[np.int64],
    config: TrainingConfig,
    pace: _Pace,
    should_stop: Callable[[], bool],
) -> float:
    """One epoch, in slices of whole batches. The slices change no bit: they only pass the sum of the losses on."""
    loss_sum = 0.0
    start = 0
    while start < len(order):
        if should_stop():
            raise StoppedError
        began = time.perf_counter()
        rows = order[start : start + pace.steps * config.batch_size]
        loss_sum = plan.train(placed, rows, config.batch_size, config.learning_rate, loss_sum)
        start += len(rows)
        if time.perf_counter() - began < _STOP_CHECK_SECONDS / 2:
            pace.steps *= 2
    return loss_sum / len(order)
