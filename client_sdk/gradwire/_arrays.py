"""What users have, as arrays that can be sent: lists, pandas, torch CPU tensors, NumPy arrays of any number type."""

from typing import Any

import numpy as np

from gradwire._exceptions import FieldViolation, invalid
from gradwire_engine.backend import Array


def to_array(value: Any, field: str, dtype: "np.dtype[Any] | None" = None) -> Array:
    """Return `value` as an array: floats in `dtype`, or as they are without one; integers always as they are.

    `field` is named in errors.
    """
    array = _view(value, field)
    if array.size == 0:
        raise invalid([FieldViolation(field, f"is empty: it has shape {array.shape}")])
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # What is too large for the dtype becomes infinite, and validation says so.
            return array.astype(
                dtype or (array.dtype if array.dtype in (np.float32, np.float64) else np.float32), copy=False
            )
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype == np.uint64:
        if array.max() > np.iinfo(np.int64).max:
            raise invalid([FieldViolation(field, "has numbers above 2^63 - 1: convert them to floats")])
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise invalid(
            [FieldViolation(field, f"must be numbers, got an array of dtype {array.dtype}: convert it first")]
        )
    return array


def _view(value: Any, field: str) -> Array:
    if hasattr(value, "detach"):  # a torch tensor
        value = value.detach()
    elif hasattr(value, "to_numpy"):  # pandas
        value = value.to_numpy()
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        description = f"is not something that NumPy can view as an array of numbers: {error}"
        raise invalid([FieldViolation(field, description)]) from error
