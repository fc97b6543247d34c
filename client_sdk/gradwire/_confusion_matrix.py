"""How a classifier on a server predicts each class: the confusion matrix and the metrics of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gradwire._exceptions import FailedPreconditionError
from gradwire_engine.backend import Array
from gradwire_engine.classification import ClassificationReport, evaluation_text
from gradwire_engine.spec.messages import class_names_of, classification_report_of, evaluated_on_of
from gradwire_proto.v1.metrics_pb2 import ClassCounts
from gradwire_proto.v1.model_service_pb2 import GetClassCountsRequest

if TYPE_CHECKING:
    from gradwire._transport import Transport

# An epoch of a job whose weights are kept. None means the epoch of the model.
KeptEpoch: TypeAlias = int | Literal["best", "last"] | None

# A wider matrix does not fit into a terminal. Its most frequent mistakes are listed instead.
_SHOWN_CLASSES = 20
_SHOWN_MISTAKES = 20
# The opacity of the cell with all rows of a class. Text on it stays readable in light and dark notebooks.
_MAX_OPACITY = 0.6


@dataclass(frozen=True, eq=False, repr=False)
class ConfusionMatrix:
    """The number of rows for each pair of actual and predicted class. `print` shows it, and notebooks show its colors.

    NumPy functions accept it as an array.

    Attributes:
        counts: The matrix, of shape (classes, classes). Element [i, j] is the number of rows of class i that are
            predicted as class j.
        class_names: The names of the classes, or their indices as text.
        evaluated_on: The data set: "test", or "train" if the job has no test set.
        epoch: The epoch whose weights were used.
    """

    counts: NDArray[np.int64]
    class_names: tuple[str, ...]
    evaluated_on: Literal["test", "train"]
    epoch: int

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> Array:
        return np.array(self.counts, dtype) if copy or dtype is not None else self.counts

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        rows = self._matrix() if len(self.counts) <= _SHOWN_CLASSES else self._mistakes()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        return "\n".join([*lines, evaluation_text(self.evaluated_on, self.epoch)])

    def _repr_html_(self) -> str:
        from html import escape  # noqa: PLC0415  (only for notebooks)

        names = [escape(name) for name in self.class_names]
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            f"<tr><th>{name}</th>{''.join(map(_cell, row, self._shares(row)))}</tr>"
            for name, row in zip(names, self.counts, strict=True)
        )
        note = f"Rows: actual classes. Columns: predicted classes. {evaluation_text(self.evaluated_on, self.epoch)}"
        table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div><div style="overflow:auto;max-height:32em">{table}</div><div>{note}</div></div>'

    def _matrix(self) -> list[list[str]]:
        rows = [[name, *map(str, row)] for name, row in zip(self.class_names, self.counts.tolist(), strict=True)]
        return [["actual \\ predicted", *self.class_names], *rows]

    def _mistakes(self) -> list[list[str]]:
        mistakes = self.counts - np.diag(self.counts.diagonal())
        pairs = np.argsort(-mistakes, axis=None, kind="stable")[:_SHOWN_MISTAKES]
        rows = [
            [self.class_names[actual], self.class_names[predicted], str(mistakes[actual, predicted])]
            for actual, predicted in zip(*np.unravel_index(pairs, mistakes.shape), strict=True)
            if mistakes[actual, predicted]
        ]
        return [["actual", "predicted", "rows"], *rows]

    @staticmethod
    def _shares(row: NDArray[np.int64]) -> Sequence[float]:
        shares: list[float] = (row / max(int(row.sum()), 1)).tolist()
        return shares


def _cell(count: int, share: float) -> str:
    color = f' style="background:rgba(0,114,178,{_MAX_OPACITY * share:.2f})"' if count else ""
    return f"<td{color}>{count}</td>"


async def fetch_class_counts(transport: Transport, name: str, epoch: int) -> ClassCounts:
    """Return the class counts of the model "models/{id}", or of a kept epoch of its job."""
    return await transport.call(transport.models.GetClassCounts, GetClassCountsRequest(name=name, epoch=epoch))


async def fetch_confusion_matrix(transport: Transport, name: str, epoch: int) -> ConfusionMatrix:
    """Return the confusion matrix of a model or a kept epoch.

    Raises:
        FailedPreconditionError: The model has no confusion matrix.
    """
    counts = await fetch_class_counts(transport, name, epoch)
    classes = len(counts.actual)
    if not counts.confusion:
        raise FailedPreconditionError(
            f"model {name.removeprefix('models/')!r} has no confusion matrix, because it has {classes:,} classes, more "
            "than 100. classification_report() returns the metrics of each class."
        )
    matrix = np.array(counts.confusion, np.int64).reshape(classes, classes)
    return ConfusionMatrix(matrix, tuple(class_names_of(counts)), evaluated_on_of(counts), counts.epoch)


async def fetch_classification_report(transport: Transport, name: str, epoch: int) -> ClassificationReport:
    """Return the metrics of each class of a model or a kept epoch."""
    return classification_report_of(await fetch_class_counts(transport, name, epoch))
