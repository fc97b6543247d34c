"""The persistent kernel (persistent.cu): the problems that it suits, its layout, and its launches."""

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

# For wider layers and larger batches, cuBLAS products, which divide a layer among the whole GPU, are expected to be
# faster.
_MAX_WIDTH = 128
_MAX_BATCH = 128
# Steps in one launch, which cannot be interrupted: about a second.
_STEPS_PER_LAUNCH = 1 << 16
_INDEX_BYTES = 8


@dataclass(frozen=True)
class Layout:
    """The number of blocks, and what each of them needs.

    Attributes:
        table: int32 of shape (layers, 5), a row for each `struct Layer` of persistent.cu.
        width: The outputs of all layers together.
        blocks: The number of blocks.
        shared_bytes: The shared memory of a block.
    """

    table: NDArray[np.int32]
    width: int
    blocks: int
    shared_bytes: int

    @classmethod
    def of(cls, network: Network, batch: int, itemsize: int) -> "Layout":
        """Return the layout for batches of `batch` rows whose elements have `itemsize` bytes."""
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
    """Whether to use the persistent kernel for a network on a device, with batches of `batch` rows."""
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
        # Each for two batches; see persistent.cu.
        self._outputs = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._gradients = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._losses = device.zeros(2 * batch, np.dtype(np.float64))
        self._arrivals = device.zeros(1, np.dtype(np.uint32))

    def train(self, weights: Any, examples: DeviceExamples, order: Any, learning_rate: float, loss_sum: Any) -> None:
        """Take one SGD step for every batch of rows.

        Args:
            weights: The flat vector, which is updated.
            examples: The set.
            order: The indices of the rows in the set, int64.
            learning_rate: The learning rate.
            loss_sum: float64 of shape (1,), to which the loss of each batch times its rows is added.
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
