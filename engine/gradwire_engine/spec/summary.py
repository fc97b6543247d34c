"""Summarizes the elements of a tensor for validation, in one pass. Summaries can be cached by tensor digest."""

from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array

# The maximum number of elements in a block. It bounds the memory needed for a mapped file.
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class TensorSummary:
    """Properties of the elements of a tensor.

    Attributes:
        first_bad_row: The index of the first row that contains a NaN or an infinity, or -1 if all elements are finite.
        minimum: The smallest element, or NaN if an element is not finite.
        maximum: The largest element, or NaN if an element is not finite.
        distributions: Whether the tensor is a matrix with non-negative elements in which every row sums to 1.
        one_hot: Whether every row of the matrix is one-hot: it sums to 1, and all its elements are 0 or 1.
    """

    first_bad_row: int
    minimum: float
    maximum: float
    distributions: bool
    one_hot: bool


def summarize(array: Array) -> TensorSummary:
    """Summarize an array that has one or more dimensions."""
    matrix = array.reshape(len(array), -1)
    rows_per_block = max(1, _BLOCK_ELEMENTS // matrix.shape[1])
    minimum, maximum = np.inf, -np.inf
    distributions = one_hot = array.ndim == 2
    for start in range(0, len(matrix), rows_per_block):
        rows = matrix[start : start + rows_per_block]
        sums = np.zeros(len(rows))
        for column in range(0, matrix.shape[1], _BLOCK_ELEMENTS):  # Only a very long row has several blocks.
            block = rows[:, column : column + _BLOCK_ELEMENTS]
            low, high = float(block.min()), float(block.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                finite_rows = np.isfinite(block).all(axis=1)
                return TensorSummary(start + int(np.argmin(finite_rows)), np.nan, np.nan, False, False)
            minimum, maximum = min(minimum, low), max(maximum, high)
            distributions = distributions and low >= 0 and high <= 1
            if distributions:
                sums += block.sum(axis=1)
                one_hot = one_hot and bool(np.all((block == 0) | (block == 1)))
        distributions = distributions and bool(np.all(abs(sums - 1) < 1e-3))
        one_hot = distributions and one_hot
    return TensorSummary(-1, minimum, maximum, distributions, one_hot)
