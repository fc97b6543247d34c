"""The accuracy function, and the metrics of an epoch, which are computed from sums over blocks of rows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, array_module, to_numpy


def accuracy(logits: Array, targets: Any) -> float:
    """Return the fraction of rows for which the class with the largest output is the target class.

    Args:
        logits: The outputs of a model, logits or probabilities, of shape (N, classes).
        targets: Class indices of shape (N,), or one-hot rows of shape (N, classes).

    Raises:
        ValueError: The shapes do not match.
    """
    xp = array_module(logits)
    if isinstance(targets, list | np.ndarray) and np.asarray(targets).dtype.kind in "UST":
        raise ValueError(
            "accuracy takes class indices, got text. Convert it: [model.class_names.index(name) for name in targets]"
        )
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
    """The metrics of a model on a data set. Metrics that do not apply to the kind of targets are None.

    Attributes:
        loss: The mean loss over the rows.
        accuracy: Classification only. The fraction of rows that are predicted correctly; see `accuracy`.
        precision: Classification only. The macro-averaged precision; see `ClassSums.metrics`.
        recall: Classification only. The macro-averaged recall.
        f1: Classification only. The macro-averaged F1 score.
        mean_absolute_error: Regression only. The mean of |error| over rows and outputs.
        r2: Regression only. The coefficient of determination; see `ErrorSums.metrics`.
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
    """Row counts for each class. Each array has shape (classes,).

    Attributes:
        true_positives: The number of rows of the class that are predicted correctly.
        predicted: The number of rows that are predicted as the class.
        actual: The number of rows that belong to the class.
    """

    true_positives: NDArray[np.int64]
    predicted: NDArray[np.int64]
    actual: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> "ClassSums":
        """Return counts that are all 0."""
        return cls(*(np.zeros(classes, np.int64) for _ in range(3)))

    def add(self, outputs: Array, labels: Array) -> None:
        """Count the rows of a block, given outputs of shape (n, classes) and labels of shape (n,)."""
        xp = array_module(outputs)
        classes = len(self.actual)
        predictions = xp.argmax(outputs, axis=1)
        self.predicted += to_numpy(xp.bincount(predictions, minlength=classes))
        self.actual += to_numpy(xp.bincount(labels, minlength=classes))
        self.true_positives += to_numpy(xp.bincount(labels[predictions == labels], minlength=classes))

    def metrics(self, loss: float) -> Metrics:
        """Return the classification metrics.

        Precision, recall and F1 are unweighted means over the classes that occur in the targets or the predictions. If
        a metric is undefined for a class, it counts as 0. scikit-learn does the same with average="macro" and
        zero_division=0.
        """
        # Plain Python is faster than NumPy here, because there are usually few classes.
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
    """Error sums over the rows, for each output. Each array is float64 and has shape (outputs,).

    Attributes:
        absolute: The sum of |error|.
        squared: The sum of error^2.
    """

    absolute: NDArray[np.float64]
    squared: NDArray[np.float64]

    @classmethod
    def zero(cls, outputs: int) -> "ErrorSums":
        """Return sums that are all 0."""
        return cls(np.zeros(outputs), np.zeros(outputs))

    def add(self, outputs: Array, targets: Array) -> None:
        """Add the errors of a block of rows, given outputs and targets of shape (n, outputs)."""
        error = (outputs - targets).astype(np.float64)
        self.absolute += to_numpy(abs(error).sum(axis=0))
        self.squared += to_numpy((error**2).sum(axis=0))

    def metrics(self, loss: float, rows: int, spread: NDArray[np.float64]) -> Metrics:
        """Return the regression metrics.

        R2 is 1 - (residual sum of squares / total sum of squares), averaged over the outputs, as in scikit-learn. If
        the targets of any output are constant, R2 is None.

        Args:
            loss: The mean loss over the rows.
            rows: The number of rows.
            spread: The total sum of squares for each output; see `Examples.spread`.
        """
        r2 = float(np.mean(1 - self.squared / spread)) if np.all(spread > 0) else None
        return Metrics(loss=loss, mean_absolute_error=float(self.absolute.mean() / rows), r2=r2)
