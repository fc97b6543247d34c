"""The arguments of the compiled loops. They are named tuples because Numba supports named tuples."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.plans.compiled.kernels import Kernels


class Model(NamedTuple):
    """The network in the form that the loops use.

    Attributes:
        kernels: The kernels for the element type.
        layers: The layer table; see layout.py.
        loss: The loss code; see `codes.LossTerms`.
        loss_share: The factor for the loss of each row; see `codes.LossTerms`.
        relu_input: Whether a ReLU precedes the first layer.
        zero: A zero of the element type. Numba infers the element type from it.
    """

    kernels: Kernels
    layers: NDArray[np.int64]
    loss: int
    loss_share: float
    relu_input: bool
    zero: Any


class Data(NamedTuple):
    """A set of examples.

    Attributes:
        inputs: The address, dtype code and item size of the row-major input matrix.
        targets: The address, dtype code and item size of the target matrix. It is unused if there are labels.
        labels: The class of each row if the targets are class indices. Otherwise, this array is empty.
        classes: For a classification problem, the class of each row. Otherwise, this array is empty.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: NDArray[np.int64]


class Batches(NamedTuple):
    """The rows to train on.

    Attributes:
        order: The row indices in training order.
        size: The number of rows in a batch.
        scales: The gradient factors for a full batch and for the last batch. Both include -learning_rate.
    """

    order: NDArray[np.int64]
    size: int
    scales: Any


class Sums(NamedTuple):
    """The sums of an evaluation. The rows are divided into strips, and each strip is summed by one thread.

    Attributes:
        losses: The sum of the losses for each strip, of shape (strips,).
        counts: For classification, the counts in `metrics.ClassSums` for each thread, of shape (threads, 3, classes).
        errors: For regression, the sums in `metrics.ErrorSums` for each strip, of shape (strips, 2, outputs).
    """

    losses: NDArray[np.float64]
    counts: NDArray[np.int64]
    errors: NDArray[np.float64]


class Thread(NamedTuple):
    """One of the threads that run a loop.

    Attributes:
        number: The number of this thread. The first thread is 0.
        threads: The total number of threads.
        barrier_at: The address of the barrier that the threads share.
        transposed_at: The address of this thread's transpose buffer.
    """

    number: int
    threads: int
    barrier_at: int
    transposed_at: int


class Span(NamedTuple):
    """A range of rows, panels or strips. It includes `start` and excludes `stop`."""

    start: int
    stop: int


class LossRow(NamedTuple):
    """The numbers that are needed to compute the loss of each row in a batch.

    Attributes:
        loss: The loss code.
        outputs: The number of network outputs.
        panel_bytes: The distance between panels, in bytes.
        scale: The gradient factor.
        zero: A zero of the element type.
    """

    loss: int
    outputs: int
    panel_bytes: int
    scale: Any
    zero: Any
