"""The confusion matrix of a classifier, and the precision, recall and F1 of each class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, array_module, to_numpy

# A matrix for this many classes takes 800 MB.
MAX_CLASSES = 10_000


def class_indices(logits: Array, targets: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the predicted and the actual class of each row.

    Args:
        logits: The outputs of a model, logits or probabilities, of shape (N, classes).
        targets: Class indices of shape (N,), or one-hot rows of shape (N, classes).

    Raises:
        ValueError: The shapes do not match, or a target is not the index of a class.
    """
    logits = logits if hasattr(logits, "ndim") else np.asarray(logits)
    xp = array_module(logits)
    if isinstance(targets, list | tuple | np.ndarray) and np.asarray(targets).dtype.kind in "UST":
        raise ValueError(
            "targets must be class indices, got text. Convert it: [model.class_names.index(name) for name in targets]"
        )
    targets = xp.asarray(targets)
    if logits.ndim != 2 or 0 in logits.shape or targets.shape not in ((len(logits),), logits.shape):
        raise ValueError(
            f"logits must have shape (N, classes), and targets (N,) or (N, classes), "
            f"got {logits.shape} and {targets.shape}"
        )
    actual = to_numpy(targets if targets.ndim == 1 else xp.argmax(targets, axis=1))
    indices = actual.astype(np.int64)
    wrong = (indices != actual) | (indices < 0) | (indices >= logits.shape[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"target {actual[row]} in row {row} is not the index of one of the {logits.shape[1]} classes, 0, 1, 2 ..."
        )
    return to_numpy(xp.argmax(logits, axis=1)).astype(np.int64), indices


def confusion_matrix(logits: Array, targets: Any) -> NDArray[np.int64]:
    """Count the rows for each pair of actual and predicted class.

    Args:
        logits: The outputs of a model, logits or probabilities, of shape (N, classes).
        targets: Class indices of shape (N,), or one-hot rows of shape (N, classes).

    Returns:
        The matrix, of shape (classes, classes). Element [i, j] is the number of rows of class i that are predicted as
        class j.

    Raises:
        ValueError: The shapes do not match, a target is not the index of a class, or there are more than 10,000
            classes.
    """
    predicted, actual = class_indices(logits, targets)
    classes = np.shape(logits)[1]
    if classes > MAX_CLASSES:
        raise ValueError(
            f"a confusion matrix of {classes:,} classes is too large: at most {MAX_CLASSES:,}. "
            "classification_report has no such limit."
        )
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassReport:
    """How well a model predicts one class.

    Attributes:
        name: The name of the class, or its index as text.
        precision: The fraction of the rows predicted as this class that belong to it; 0 if there are none.
        recall: The fraction of the rows of this class that are predicted as this class; 0 if there are none.
        f1: The harmonic mean of precision and recall.
        rows: The number of rows that belong to the class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    rows: int

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the texts of a row of a table."""
        return self.name, f"{self.precision:.4f}", f"{self.recall:.4f}", f"{self.f1:.4f}", str(self.rows)


_HEADINGS = ("class", "precision", "recall", "f1", "rows")
# A longer table is not useful on a screen. It contains the classes with the lowest F1.
_SHOWN_CLASSES = 50


class ClassificationReport(list[ClassReport]):
    """The classes of a model, in the order of its outputs. `print` shows them as a table.

    If there are more than 50 classes, the table contains only those with the lowest F1.

    Attributes:
        evaluated_on: The data set that a server used: "test" or "train". None if `gradwire.classification_report`
            computed the report.
        epoch: The epoch whose weights a server used, or None.
    """

    def __init__(
        self,
        reports: Iterable[ClassReport] = (),
        evaluated_on: Literal["test", "train"] | None = None,
        epoch: int | None = None,
    ) -> None:
        super().__init__(reports)
        self.evaluated_on = evaluated_on
        self.epoch = epoch

    @property
    def precision(self) -> NDArray[np.float64]:
        """The precision of each class, of shape (classes,)."""
        return np.array([each.precision for each in self])

    @property
    def recall(self) -> NDArray[np.float64]:
        """The recall of each class, of shape (classes,)."""
        return np.array([each.recall for each in self])

    @property
    def f1(self) -> NDArray[np.float64]:
        """The F1 of each class, of shape (classes,)."""
        return np.array([each.f1 for each in self])

    def __str__(self) -> str:
        rows = [_HEADINGS, *(report.cells() for report in self._shown())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])  # Names are left-aligned.
            for row in rows
        ]
        return "\n".join([*lines, *self._rest()])

    def _repr_html_(self) -> str:
        from html import escape  # noqa: PLC0415  (only for notebooks)

        head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in report.cells()) for report in self._shown()]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        rest = "".join(f"<div>{line}</div>" for line in self._rest())
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}</div>"

    def _shown(self) -> Sequence[ClassReport]:
        if len(self) <= _SHOWN_CLASSES:
            return self
        return sorted((each for each in self if each.rows), key=lambda each: each.f1)[:_SHOWN_CLASSES]

    def _rest(self) -> list[str]:
        hidden = len(self) - len(self._shown())
        lines = [f"{hidden:,} other classes are not shown."] if hidden else []
        if self.evaluated_on is not None:
            lines.append(evaluation_text(self.evaluated_on, self.epoch))
        return lines


def evaluation_text(evaluated_on: str | None, epoch: int | None) -> str:
    """Return the data set and the epoch of an evaluation as a line of text."""
    which = "test set" if evaluated_on == "test" else "training set"
    return f"Evaluated on the {which} after epoch {epoch}."


def classification_report(logits: Array, targets: Any, class_names: Sequence[str] = ()) -> ClassificationReport:
    """Return the precision, recall and F1 of each class.

    Args:
        logits: The outputs of a model, logits or probabilities, of shape (N, classes).
        targets: Class indices of shape (N,), or one-hot rows of shape (N, classes).
        class_names: The names of the classes, for example model.class_names. Default: the indices of the classes.

    Returns:
        A list with a ClassReport for each class.

    Raises:
        ValueError: The shapes do not match, a target is not the index of a class, or the number of names is not the
            number of classes.
    """
    predicted, actual = class_indices(logits, targets)
    classes = np.shape(logits)[1]
    if len(class_names) not in (0, classes):
        raise ValueError(f"there are {len(class_names)} class_names for {classes} classes")
    return ClassificationReport(
        class_reports(
            names=list(map(str, class_names)) or list(map(str, range(classes))),
            correct=np.bincount(actual[predicted == actual], minlength=classes).tolist(),
            predicted=np.bincount(predicted, minlength=classes).tolist(),
            actual=np.bincount(actual, minlength=classes).tolist(),
        )
    )


def class_reports(
    names: Sequence[str], correct: Sequence[int], predicted: Sequence[int], actual: Sequence[int]
) -> Iterator[ClassReport]:
    """Yield the metrics of each class.

    Args:
        names: The name of each class.
        correct: The number of rows of each class that are predicted correctly.
        predicted: The number of rows that are predicted as each class.
        actual: The number of rows of each class.
    """
    for name, hits, claims, rows in zip(names, correct, predicted, actual, strict=True):
        yield ClassReport(name, hits / max(claims, 1), hits / max(rows, 1), 2 * hits / max(claims + rows, 1), rows)
