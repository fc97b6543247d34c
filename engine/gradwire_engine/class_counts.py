"""Counts the rows of a data set by actual and by predicted class."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array, array_module, to_numpy
from gradwire_engine.examples import Examples
from gradwire_engine.inference import forward
from gradwire_engine.metrics import ClassSums
from gradwire_engine.network import Network

# With more classes than this, there is no confusion matrix, and with more than MAX_COUNTED_CLASSES, no counts at all.
MAX_MATRIX_CLASSES = 100
MAX_COUNTED_CLASSES = 1000

# The values of one layer for a block of rows take at most this many bytes, so that counting needs little memory beside
# the plan.
BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class ClassCounts:
    """The numbers of rows by class.

    Attributes:
        actual: The number of rows of each class, of shape (classes,).
        predicted: The number of rows that are predicted as each class, of shape (classes,).
        correct: The number of rows of each class that are predicted correctly, of shape (classes,).
        confusion: The confusion matrix, of shape (classes, classes): element [i, j] is the number of rows of class i
            that are predicted as class j. None if there are more than 100 classes.
    """

    actual: NDArray[np.int64]
    predicted: NDArray[np.int64]
    correct: NDArray[np.int64]
    confusion: NDArray[np.int64] | None


def count_classes(
    network: Network, vector: Array, examples: Examples, on_block: Callable[[], None] = lambda: None
) -> ClassCounts:
    """Run a forward pass on all rows, and count them by actual and predicted class.

    The predictions are those of `inference.forward`, which Predict calls use, so they do not depend on the plan.

    Args:
        network: The network of a classifier.
        vector: Its flat weight vector. If it is a CuPy array, the GPU runs the forward pass.
        examples: The data set.
        on_block: A function that is called before each block of rows. It can raise an exception to stop.
    """
    xp = array_module(vector)
    classes = network.out_features
    sums = ClassSums.zero(classes)
    pairs = np.zeros(classes * classes if classes <= MAX_MATRIX_CLASSES else 0, np.int64)
    step = max(1, BLOCK_BYTES // (network.widest * vector.itemsize))
    for start in range(0, examples.rows, step):
        on_block()
        outputs = forward(network, vector, xp.asarray(examples.inputs[start : start + step]))
        targets = xp.asarray(examples.targets[start : start + step])
        # The type of the targets may be too small for the number of a pair.
        actual = (targets if targets.ndim == 1 else targets.argmax(axis=1)).astype(np.int64)
        if len(pairs):
            pairs += to_numpy(xp.bincount(actual * classes + outputs.argmax(axis=1), minlength=len(pairs)))
        else:
            sums.add(outputs, actual)
    if not len(pairs):
        return ClassCounts(sums.actual, sums.predicted, sums.true_positives, None)
    confusion = pairs.reshape(classes, classes)
    return ClassCounts(confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal(), confusion)
