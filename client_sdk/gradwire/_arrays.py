"""Converts the user's data (lists, pandas objects, torch CPU tensors or NumPy arrays) to arrays that can be sent."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradwire._argument_names import invalid
from gradwire._exceptions import FieldViolation, InvalidArgumentError
from gradwire_engine.backend import Array


def to_array(value: ArrayLike, field: str, dtype: "np.dtype[Any] | None" = None) -> Array:
    """Convert a value to an array.

    Args:
        value: An array, a nested list, a pandas object or a torch CPU tensor.
        field: The field to name in errors.
        dtype: The type for floats. None keeps float32 and float64. Integers keep their type, and booleans become uint8.

    Raises:
        InvalidArgumentError: The value is empty or masked, or contains something that is not a number, or a number that
            is too large for the type.
    """
    array = _view(value, field)
    if array.size == 0:
        raise _wrong(field, f"is empty: it has shape {array.shape}")
    if array.dtype.kind == "f":
        return _converted(array, field, dtype or (array.dtype if array.dtype == np.float64 else np.dtype(np.float32)))
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype == np.uint64:
        if array.max() > np.iinfo(np.int64).max:
            raise _wrong(field, "has numbers above 2^63 - 1. Convert them to floats.")
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise _wrong(field, f"must be numbers, got an array of dtype {array.dtype}. Convert it first.")
    return array


def _converted(array: Array, field: str, dtype: "np.dtype[Any]") -> Array:
    """Convert floats. An infinity or a NaN is kept, and validation reports it."""
    with np.errstate(over="ignore"):
        converted = array.astype(dtype, copy=False)
    # The extremes are finite only if all elements are, and computing them needs no temporary array.
    if converted.dtype.itemsize >= array.dtype.itemsize or np.isfinite([converted.min(), converted.max()]).all():
        return converted
    too_large = np.argwhere(np.isinf(np.atleast_1d(converted)) & np.isfinite(np.atleast_1d(array)))
    if len(too_large):
        number = np.atleast_1d(array)[tuple(too_large[0])]
        raise _wrong(
            field,
            f"row {too_large[0][0]} has {number:g}, which is too large for {dtype}. Scale the data, or use "
            'dtype="float64"',
        )
    return converted


def _view(value: Any, field: str) -> Array:
    if hasattr(value, "detach"):  # A torch tensor.
        value = value.detach()
    elif hasattr(value, "to_numpy"):  # A pandas object.
        value = _from_pandas(value, field)
    if isinstance(value, np.ma.MaskedArray):
        if value.mask.any():
            raise _wrong(field, "has masked values. Drop their rows, or fill them with array.filled(...).")
        value = value.data
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _wrong(field, f"cannot be converted to an array of numbers: {error}") from None


def _from_pandas(value: Any, field: str) -> Array:
    """Convert a DataFrame or a Series. Columns with several types or nullable types are converted one by one."""
    array: Array = value.to_numpy()
    if not hasattr(value, "columns"):
        return _column(value, field)
    if array.dtype.kind == "O":
        array = np.column_stack([_column(value.iloc[:, index], field) for index in range(value.shape[1])])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        what = "a missing value" if np.isnan(array[row, column]) else "an infinity"
        raise _wrong(field, f"column {value.columns[column]!r} has {what} in row {row}. Fill it in, or drop the row.")
    return array


def _column(series: Any, field: str) -> Array:
    array: Array = series.to_numpy()
    if array.dtype.kind != "O":
        return array
    try:
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError):
        which = f"column {series.name!r}" if series.name is not None else "the series"
        raise _wrong(field, f"{which} has values that are not numbers. Encode or drop them first.") from None


def _wrong(field: str, description: str) -> InvalidArgumentError:
    return invalid([FieldViolation(field, description)])
