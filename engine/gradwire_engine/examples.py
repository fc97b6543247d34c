"""Examples: the inputs and targets of a training or test set, in the form that plans work on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array


@dataclass(frozen=True)
class Examples:
    """A set of examples on the host. The arrays may be mapped files; they are only read.

    inputs: (rows, features), any number type. targets: class indices (rows,), or a matrix (rows, outputs).
    classification: whether epochs report accuracy and its kin, or errors.
    """

    inputs: Array
    targets: Array
    classification: bool

    @classmethod
    def of(cls, inputs: Array, targets: Array, classification: bool) -> "Examples":
        """Bring the targets into form: 1-D floats become (rows, 1)."""
        if targets.ndim == 1 and not np.issubdtype(targets.dtype, np.integer):
            targets = targets.reshape(-1, 1)
        return cls(inputs, targets, classification)

    @property
    def rows(self) -> int:
        """The number of examples."""
        return len(self.inputs)

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """The total sum of squares of matrix targets around their mean, by output, shape (outputs,)."""
        targets = self.targets.astype(np.float64)
        spread: NDArray[np.float64] = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
        return spread
