"""Converts targets to class indices: text to the index of its class, and whole numbers of any type to integers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradwire._argument_names import invalid
from gradwire._exceptions import FieldViolation, InvalidArgumentError
from gradwire_engine.backend import Array
from gradwire_engine.spec.validation import counted

# An error lists at most this many classes.
_SHOWN_CLASSES = 8


def text_labels(targets: ArrayLike, field: str) -> Array | None:
    """Return text targets as strings of shape (rows,), or None if the targets are not text.

    Args:
        targets: What the user passed. A column of shape (rows, 1) is accepted too.
        field: The field to name in errors.

    Raises:
        InvalidArgumentError: Some rows are text and others are not.
    """
    array = _plain_array(targets)
    if array is None or array.ndim != 1:
        return None
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind == "O":
        if not any(isinstance(label, str) for label in array):
            return None
        for row, label in enumerate(array):
            if not isinstance(label, str):
                raise _wrong(field, f"row {row} is {label!r}, but other rows are text. Give each row a label.")
    return array.astype(str) if array.dtype.kind in "OUT" else None


def classes_in(labels: Array, outputs: int, field: str) -> tuple[str, ...]:
    """Return the classes that occur in a training set, in alphabetical order.

    Raises:
        InvalidArgumentError: The model does not have one output for each of them.
    """
    names = tuple(str(name) for name in np.unique(labels))
    if outputs < 2:
        raise _wrong(field, "is text, but a model with one output needs numbers")
    if len(names) != outputs:
        raise _wrong(
            field,
            f"has {counted(len(names), 'class', 'classes')} ({_listed(names)}), but the model has {outputs} outputs. "
            "Make them the same, or name all classes with classes=",
        )
    return names


def encoded(labels: Array, names: Sequence[str], field: str) -> Array:
    """Return the class index of each row.

    Args:
        labels: Text of shape (rows,).
        names: The classes, in the order of the outputs.
        field: The field to name in errors.

    Raises:
        InvalidArgumentError: A label is not one of the classes.
    """
    numbers = {name: number for number, name in enumerate(names)}
    occurring, where = np.unique(labels, return_inverse=True)
    unknown = [label for label in occurring if label not in numbers]
    if unknown:
        row = int(np.argmax(labels == unknown[0]))
        raise _wrong(field, f"row {row} is {str(unknown[0])!r}, which is not one of the classes: {_listed(names)}")
    return np.array([numbers[label] for label in occurring], np.int64)[where]


def whole_numbers(targets: Array, field: str) -> Array:
    """Convert 1-D floats to integers, because class indices read from a file or a data frame are often floats.

    Raises:
        InvalidArgumentError: A number is not whole.
    """
    with np.errstate(invalid="ignore"):
        integers = targets.astype(np.int64)
    wrong = integers != targets
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _wrong(field, f"row {row} is {targets[row]:g}, but cross-entropy needs the index of a class, 0, 1, 2 ...")
    return integers


def _plain_array(targets: Any) -> Array | None:
    if isinstance(targets, np.ma.MaskedArray) or hasattr(targets, "detach"):
        return None
    try:
        array: Array = targets.to_numpy() if hasattr(targets, "to_numpy") else np.asarray(targets)
    except (ValueError, TypeError, RuntimeError):  # The conversion to numbers reports what is wrong.
        return None
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN_CLASSES])
    return f"{shown} and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else shown


def _wrong(field: str, description: str) -> InvalidArgumentError:
    return invalid([FieldViolation(field, description)])
