"""Launches the persistent kernel (persistent.cu), and decides when to use it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.network import Network
from gradwire_engine.plans.base import Problem
from gradwire_engine.plans.codes import loss_terms
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.device_examples import DeviceExamples
from gradwire_engine.plans.cuda.kernels import OUTPUTS_PER_BLOCK, PersistentArguments

# For wider layers and larger batches, cuBLAS products are expected to be faster, because they use the whole GPU for
# each layer.
_MAX_WIDTH = 128
_MAX_BATCH = 128
# The number of steps in a launch, which takes about a second and cannot be interrupted.
_STEPS_PER_LAUNCH = 1 << 16
_INDEX_BYTES = 8


@dataclass(frozen=True)
class Layout:
    """The layout of the persistent kernel.

    Attributes:
        table: An int32 array of shape (layers, 5). Each row is a `struct Layer` in persistent.cu.
        width: The total number of outputs of all layers.
        blocks: The number of blocks.
        shared_bytes: The shared memory for each block, in bytes.
    """

    table: NDArray[np.int32]
    width: int
    blocks: int
    shared_bytes: int

    @classmethod
    def of(cls, network: Network, batch: int, itemsize: int) -> "Layout":
        """Return the layout for batches of `batch` rows, with elements of `itemsize` bytes."""
        rows, width = [], 0
        for layer in network.layers:
            rows.append((layer.in_features, layer.out_features, layer.relu, layer.offset, width))
            width += layer.out_features
        first = network.layers[0]
        blocks = -(-first.out_features // OUTPUTS_PER_BLOCK)
        rows_each = -(-batch // blocks)
        own_elements = batch * OUTPUTS_PER_BLOCK + OUTPUTS_PER_BLOCK * (first.in_features + 1)
        elements = own_elements + (network.size - first.size) + 2 * rows_each * width
        return cls(np.array(rows, np.int32), width, blocks, batch * _INDEX_BYTES + elements * itemsize)


def suits(network: Network, batch: int, itemsize: int, device: Device) -> bool:
    """Return whether to use the persistent kernel for a network and batches of `batch` rows on a device."""
    if batch > _MAX_BATCH or max(layer.out_features for layer in network.layers) > _MAX_WIDTH:
        return False
    layout = Layout.of(network, batch, itemsize)
    return device.fits_cooperative(layout.blocks, layout.shared_bytes)


class PersistentKernel:
    """The persistent kernel for one problem and one batch size."""

    def __init__(self, problem: Problem, batch: int, device: Device) -> None:
        """Allocate the exchange buffers.

        Raises:
            MemoryError: The device does not have enough memory.
        """
        self._problem = problem
        self._batch = batch
        self._device = device
        self._layout = Layout.of(problem.network, batch, problem.dtype.itemsize)
        self._table = device.zeros(self._layout.table.shape, self._layout.table.dtype)
        device.copy_in(self._table, self._layout.table)
        # Each exchange buffer has room for two batches; see persistent.cu.
        self._outputs = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._gradients = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._losses = device.zeros(2 * batch, np.dtype(np.float64))
        self._arrivals = device.zeros(1, np.dtype(np.uint32))

    def train(self, weights: Any, examples: DeviceExamples, order: Any, learning_rate: float, loss_sum: Any) -> None:
        """Take one SGD step for each batch of rows.

        Args:
            weights: The flat vector, which is updated in place.
            examples: The training set.
            order: The indices of the rows to train on, as int64.
            learning_rate: The learning rate.
            loss_sum: A float64 array of shape (1,). For each batch, the kernel adds the loss times the number of rows.
        """
        max_rows = _STEPS_PER_LAUNCH * self._batch
        for start in range(0, order.size, max_rows):
            rows = order[start : start + max_rows]
            self._device.copy_in(self._arrivals, np.zeros(1, np.uint32))
            arguments = self._arguments(weights, examples, rows, learning_rate, loss_sum)
            self._device.launch_cooperative(self._layout.blocks, self._layout.shared_bytes, arguments)

    def _arguments(
        self, weights: Any, examples: DeviceExamples, rows: Any, learning_rate: float, loss_sum: Any
    ) -> PersistentArguments:
        loss = loss_terms(self._problem)
        return PersistentArguments(
            weights=weights,
            layers=self._table,
            layer_count=len(self._problem.network.layers),
            inputs=examples.inputs,
            input_type=examples.input_type,
            relu_input=self._problem.network.relu_input,
            targets=examples.targets,
            target_type=examples.target_type,
            is_labels=examples.is_labels,
            order=rows,
            row_count=np.int64(rows.size),
            batch=self._batch,
            loss=loss.code,
            gradient_factor=np.float64(loss.gradient_factor),
            loss_share=np.float64(loss.loss_share),
            rate=self._problem.dtype.type(learning_rate),
            exchange_outputs=self._outputs,
            exchange_gradients=self._gradients,
            exchange_losses=self._losses,
            arrivals=self._arrivals,
            loss_sum=loss_sum,
        )
