"""The inputs and targets of a training set or a test set, as plans use them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array


@dataclass(frozen=True)
class Examples:
    """A set of examples in host memory. The arrays can be memory-mapped files. They are never modified.

    Attributes:
        inputs: A numeric array of shape (rows, features).
        targets: Class indices of shape (rows,), or a matrix of shape (rows, outputs).
        classification: Whether to report classification metrics (true) or regression metrics (false).
    """

    inputs: Array
    targets: Array
    classification: bool

    @classmethod
    def of(cls, inputs: Array, targets: Array, classification: bool) -> "Examples":
        """Create a set of examples. 1-D regression targets are reshaped to (rows, 1)."""
        if targets.ndim == 1 and not (classification and np.issubdtype(targets.dtype, np.integer)):
            targets = targets.reshape(-1, 1)
        return cls(inputs, targets, classification)

    @property
    def rows(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """The sum of squared deviations of the targets from their mean, for each output. The shape is (outputs,)."""
        targets = self.targets.astype(np.float64)
        spread: NDArray[np.float64] = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        return spread
