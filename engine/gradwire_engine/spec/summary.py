"""The facts about the elements of a tensor that validation needs. One pass finds them; they can be cached by digest."""

from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array

# The elements of a block of rows, about. It bounds the memory that a mapped file needs.
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class TensorSummary:
    """Facts about the elements of a tensor.

    Attributes:
        first_bad_row: The first row with a NaN or an infinity, or -1 if all elements are finite.
        minimum: The smallest element, or NaN if not all are finite.
        maximum: The largest element, or NaN if not all are finite.
        distributions: Whether it is a matrix whose elements are >= 0 and whose rows sum to 1.
        one_hot: Whether, in addition, all elements are 0 or 1.
    """

    first_bad_row: int
    minimum: float
    maximum: float
    distributions: bool
    one_hot: bool


def summarize(array: Array) -> TensorSummary:
    """Summarize an array of one or more dimensions in one pass."""
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
