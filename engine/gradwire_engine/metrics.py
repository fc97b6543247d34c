"""The accuracy of a model, and the metrics that every epoch reports, computed from sums over blocks of rows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, array_module, to_numpy


def accuracy(logits: Array, targets: Any) -> float:
    """Return the fraction of rows whose largest output is that of their class.

    Args:
        logits: The outputs of a model, of shape (N, classes). Probabilities give the same result.
        targets: Class indices of shape (N,), or one-hot rows of shape (N, classes).

    Raises:
        ValueError: The shapes do not match.
    """
    xp = array_module(logits)
    targets = xp.asarray(targets)
    if logits.ndim != 2 or targets.shape not in ((len(logits),), logits.shape):
        raise ValueError(
            f"accuracy takes logits of shape (N, classes) and targets of shape (N,) or (N, classes), "
            f"got {logits.shape} and {targets.shape}"
        )
    classes = targets if targets.ndim == 1 else xp.argmax(targets, axis=1)
    return float(xp.mean(xp.argmax(logits, axis=1) == classes))


@dataclass(frozen=True)
class Metrics:
    """The quality of a model on a set. Metrics that do not apply to its targets are None.

    Attributes:
        loss: The mean loss over the rows.
        accuracy: Classification: the fraction of rows whose largest output is that of their class.
        precision: Classification: the macro precision; see `ClassSums.metrics`.
        recall: Classification: the macro recall.
        f1: Classification: the macro F1.
        mean_absolute_error: Regression: the mean of |error| over rows and outputs.
        r2: Regression: the coefficient of determination; see `ErrorSums.metrics`.
    """

    loss: float
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    mean_absolute_error: float | None = None
    r2: float | None = None


@dataclass
class ClassSums:
    """Counts of rows for each class, each of shape (classes,).

    Attributes:
        true_positives: Rows of the class predicted as such.
        predicted: Rows that are predicted as the class.
        actual: Rows of the class.
    """

    true_positives: NDArray[np.int64]
    predicted: NDArray[np.int64]
    actual: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> "ClassSums":
        """Return counts of 0."""
        return cls(*(np.zeros(classes, np.int64) for _ in range(3)))

    def add(self, outputs: Array, labels: Array) -> None:
        """Count a block of rows: outputs of shape (n, classes), labels of shape (n,)."""
        xp = array_module(outputs)
        classes = len(self.actual)
        predictions = xp.argmax(outputs, axis=1)
        self.predicted += to_numpy(xp.bincount(predictions, minlength=classes))
        self.actual += to_numpy(xp.bincount(labels, minlength=classes))
        self.true_positives += to_numpy(xp.bincount(labels[predictions == labels], minlength=classes))

    def metrics(self, loss: float) -> Metrics:
        """Return the metrics of a classification.

        Precision, recall and F1 are unweighted means over the classes that occur among targets or predictions. A class
        for which a metric is undefined counts as 0. This equals average="macro", zero_division=0 in scikit-learn.
        """
        # In plain Python: with few classes and short epochs, it is faster than NumPy.
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
    """Sums over the rows for each output, each float64 of shape (outputs,).

    Attributes:
        absolute: The sum of |error|.
        squared: The sum of error^2.
    """

    absolute: NDArray[np.float64]
    squared: NDArray[np.float64]

    @classmethod
    def zero(cls, outputs: int) -> "ErrorSums":
        """Return sums of 0."""
        return cls(np.zeros(outputs), np.zeros(outputs))

    def add(self, outputs: Array, targets: Array) -> None:
        """Add a block of rows: outputs and targets of shape (n, outputs)."""
        error = (outputs - targets).astype(np.float64)
        self.absolute += to_numpy(abs(error).sum(axis=0))
        self.squared += to_numpy((error**2).sum(axis=0))

    def metrics(self, loss: float, rows: int, spread: NDArray[np.float64]) -> Metrics:
        """Return the metrics of a regression.

        R2 is 1 - (residual / total sum of squares), averaged over the outputs, as in scikit-learn. It is None if the
        targets of an output are constant.

        Args:
            loss: The mean loss over the rows.
            rows: The number of rows.
            spread: The total sum of squares of the targets for each output; see `Examples.spread`.
        """
        r2 = float(np.mean(1 - self.squared / spread)) if np.all(spread > 0) else None
        return Metrics(loss=loss, mean_absolute_error=float(self.absolute.mean() / rows), r2=r2)
