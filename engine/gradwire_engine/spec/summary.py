"""What validation must know of a tensor's elements, gathered in one pass, so that it can be remembered by digest."""

from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array

# Rows are looked at in blocks of about this many elements, which bounds the memory for mapped files.
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class TensorSummary:
    """Facts on the elements of a tensor.

    first_bad_row: the first row with a NaN or an infinity, -1 where all is finite. minimum and maximum are NaN then.
    distributions: whether it is a matrix whose rows are each >= 0 and sum to 1. one_hot: whether they are 0 and 1 too.
    """

    first_bad_row: int
    minimum: float
    maximum: float
    distributions: bool
    one_hot: bool


def summarize(array: Array) -> TensorSummary:
    """Look once at every element of an array of one or more dimensions."""
    rows_per_block = max(1, _BLOCK_ELEMENTS // max(1, array[0].size))
    minimum, maximum = np.inf, -np.inf
    distributions = one_hot = array.ndim == 2
    for start in range(0, len(array), rows_per_block):
        block = array[start : start + rows_per_block]
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite_rows = np.isfinite(block).reshape(len(block), -1).all(axis=1)
            return TensorSummary(start + int(np.argmin(finite_rows)), np.nan, np.nan, False, False)
        minimum, maximum = min(minimum, low), max(maximum, high)
        distributions = distributions and low >= 0 and high <= 1 and bool(np.all(abs(block.sum(axis=1) - 1) < 1e-3))
        one_hot = distributions and one_hot and bool(np.all((block == 0) | (block == 1)))
    return TensorSummary(-1, minimum, maximum, distributions, one_hot)
