"""The inputs and targets of a training or test set, in the form that plans use."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array


@dataclass(frozen=True)
class Examples:
    """A set of examples on the host. The arrays can be memory-mapped files; nothing writes to them.

    Attributes:
        inputs: Numbers of any type, of shape (rows, features).
        targets: Class indices of shape (rows,), or a matrix of shape (rows, outputs).
        classification: Whether to report the metrics of a classification, or those of a regression.
    """

    inputs: Array
    targets: Array
    classification: bool

    @classmethod
    def of(cls, inputs: Array, targets: Array, classification: bool) -> "Examples":
        """Return the examples of a data set. 1-D regression targets become a matrix of shape (rows, 1)."""
        if targets.ndim == 1 and not (classification and np.issubdtype(targets.dtype, np.integer)):
            targets = targets.reshape(-1, 1)
        return cls(inputs, targets, classification)

    @property
    def rows(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """The total sum of squares of the targets around their mean for each output, of shape (outputs,)."""
        targets = self.targets.astype(np.float64)
        spread: NDArray[np.float64] = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        return spread
