"""accuracy, and the metrics that every epoch reports, computed from sums over blocks of rows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, array_module, to_numpy


def accuracy(logits: Array, targets: Any) -> float:
    """Return the share of rows whose largest output is their class.

    logits has shape (N, classes); targets holds class indices (N,) or one-hot rows (N, classes).
    """
    xp = array_module(logits)
    targets = xp.asarray(targets)
    if logits.ndim != 2 or targets.shape not in ((len(logits),), logits.shape):
        raise ValueError(
            f"accuracy takes (N, classes) and (N,) or (N, classes), got {logits.shape} and {targets.shape}"
        )
    classes = targets if targets.ndim == 1 else xp.argmax(targets, axis=1)
    return float(xp.mean(xp.argmax(logits, axis=1) == classes))


@dataclass(frozen=True)
class Metrics:
    """How well a model does on a set. What does not apply to its kind of targets is None."""

    loss: float
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    mean_absolute_error: float | None = None
    r2: float | None = None


@dataclass
class ClassSums:
    """Counts by class: rows rightly given to it, given to it at all, and truly of it. Each of shape (classes,)."""

    true_positives: NDArray[np.int64]
    predicted: NDArray[np.int64]
    actual: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> "ClassSums":
        """Return counts for no rows at all."""
        return cls(*(np.zeros(classes, np.int64) for _ in range(3)))

    def add(self, outputs: Array, labels: Array) -> None:
        """Count a block: outputs (n, classes), labels (n,)."""
        xp = array_module(outputs)
        classes = len(self.actual)
        predictions = xp.argmax(outputs, axis=1)
        self.predicted += to_numpy(xp.bincount(predictions, minlength=classes))
        self.actual += to_numpy(xp.bincount(labels, minlength=classes))
        self.true_positives += to_numpy(xp.bincount(labels[predictions == labels], minlength=classes))

    def metrics(self, loss: float) -> Metrics:
        """Accuracy, and macro precision, recall and F1.

        They are unweighted means over the classes that occur among targets or predictions, where a class with nothing
        to divide by counts as 0; the same as scikit-learn's average="macro" with zero_division=0.
        """
        # In plain numbers: there are few classes, and epochs can be short.
        counts = zip(self.true_positives.tolist(), self.predicted.tolist(), self.actual.tolist(), strict=True)
        occurring = [(hits, predicted, actual) for hits, predicted, actual in counts if predicted + actual > 0]
        classes = len(occurring)
        return Metrics(
            loss=loss,
            accuracy=sum(hits for hits, _, _ in occurring) / sum(actual for _, _, actual in occurring),
            precision=math.fsum(hits / max(predicted, 1) for hits, predicted, _ in occurring) / classes,
            recall=math.fsum(hits / max(actual, 1) for hits, _, actual in occurring) / classes,
            f1=math.fsum(2 * hits / (predicted + actual) for hits, predicted, actual in occurring) / classes,
        )


@dataclass
class ErrorSums:
    """Sums over the rows, by output: |error| and error^2. Each of shape (outputs,), float64."""

    absolute: NDArray[np.float64]
    squared: NDArray[np.float64]

    @classmethod
    def zero(cls, outputs: int) -> "ErrorSums":
        """Return sums over no rows at all."""
        return cls(np.zeros(outputs), np.zeros(outputs))

    def add(self, outputs: Array, targets: Array) -> None:
        """Add a block: outputs and targets of shape (n, outputs)."""
        error = (outputs - targets).astype(np.float64)
        self.absolute += to_numpy(abs(error).sum(axis=0))
        self.squared += to_numpy((error**2).sum(axis=0))

    def metrics(self, loss: float, rows: int, spread: NDArray[np.float64]) -> Metrics:
        """Mean absolute error, and R2 = 1 - residual / total sum of squares, averaged over the outputs.

        `spread` is the targets' total sum of squares by output. R2 is None where an output is constant.
        """
        r2 = float(np.mean(1 - self.squared / spread)) if np.all(spread > 0) else None
        return Metrics(loss=loss, mean_absolute_error=float(self.absolute.mean() / rows), r2=r2)
