"""The arguments of the compiled loops, as named tuples, which Numba accepts."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.plans.compiled.kernels import Kernels


class Model(NamedTuple):
    """The network as the loops see it.

    Attributes:
        kernels: The kernels for its element type.
        layers: The table of layers; see layout.py.
        loss: The code of the loss; see `codes.LossTerms`.
        loss_share: The weight of the loss of a row; see `codes.LossTerms`.
        relu_input: Whether a ReLU precedes the first layer.
        zero: A 0 of the element type.
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
        inputs: The address of a row-major matrix, the code of its dtype, and its item size.
        targets: The same for the targets. Not read if there are labels.
        labels: The class of each row if the targets are class indices, otherwise empty.
        classes: The class of each row if the problem is a classification, otherwise empty.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: NDArray[np.int64]


class Batches(NamedTuple):
    """The rows to train on.

    Attributes:
        order: The indices of the rows, in order.
        size: The number of rows in a batch.
        scales: The factors of the gradients of a whole batch, and of the last batch; each includes -learning_rate.
    """

    order: NDArray[np.int64]
    size: int
    scales: Any


class Sums(NamedTuple):
    """The sums of an evaluation, for which the rows are divided into strips.

    Attributes:
        losses: The sum of the losses of each strip, of shape (strips,).
        counts: For classifications, the counts of `metrics.ClassSums` by thread, of shape (threads, 3, classes).
        errors: For regressions, the sums of `metrics.ErrorSums` by strip, of shape (strips, 2, outputs).
    """

    losses: NDArray[np.float64]
    counts: NDArray[np.int64]
    errors: NDArray[np.float64]


class Thread(NamedTuple):
    """One of the threads that run a loop.

    Attributes:
        number: 0 for the first.
        threads: How many there are.
        barrier_at: The address of their barrier.
        transposed_at: The address of the transpose buffer of this thread.
    """

    number: int
    threads: int
    barrier_at: int
    transposed_at: int


class Span(NamedTuple):
    """A range of rows, panels or strips: from `start` up to, but not including, `stop`."""

    start: int
    stop: int


class LossRow(NamedTuple):
    """What the loss of every row of a batch needs, in numbers only.

    Attributes:
        loss: The code of the loss.
        outputs: The number of outputs of the network.
        panel_bytes: The bytes from panel to panel.
        scale: The factor of the gradient.
        zero: A 0 of the element type.
    """

    loss: int
    outputs: int
    panel_bytes: int
    scale: Any
    zero: Any
