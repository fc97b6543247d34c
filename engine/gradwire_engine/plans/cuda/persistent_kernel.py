"""Many SGD steps in one launch of narrow.cu: for which problems, and what its blocks need."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.network import Network
from gradwire_engine.plans.base import Problem
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.device_examples import Columns
from gradwire_engine.plans.cuda.kernels import OWN, loss_code, loss_factors, typed

# Beyond these, the products of cuBLAS, for which the whole GPU shares a layer's work, are expected to be faster.
_WIDEST_LAYER = 128
_LARGEST_BATCH = 128
# Steps in one launch, which cannot be interrupted: about a second.
_STEPS_PER_LAUNCH = 1 << 16
_INDEX_BYTES = 8


@dataclass(frozen=True)
class Layout:
    """How many blocks there are, and what each needs.

    table: int32 (layers, 5), a row for each `struct Layer` of narrow.cu. width: the outputs of all layers together.
    """

    table: NDArray[np.int32]
    width: int
    blocks: int
    shared_bytes: int

    @classmethod
    def of(cls, network: Network, batch: int, itemsize: int) -> "Layout":
        """Lay out batches of so many rows, whose elements have so many bytes."""
        rows, width = [], 0
        for layer in network.layers:
            rows.append((layer.in_features, layer.out_features, layer.relu, layer.offset, width))
            width += layer.out_features
        first = network.layers[0]
        blocks = -(-first.out_features // OWN)
        rows_each = -(-batch // blocks)
        elements = batch * OWN + OWN * (first.in_features + 1) + (network.size - first.size) + 2 * rows_each * width
        return cls(np.array(rows, np.int32), width, blocks, batch * _INDEX_BYTES + elements * itemsize)


def fits(network: Network, batch: int, itemsize: int, device: Device) -> bool:
    """Whether narrow.cu is the way to train so on that device."""
    if batch > _LARGEST_BATCH or max(layer.out_features for layer in network.layers) > _WIDEST_LAYER:
        return False
    layout = Layout.of(network, batch, itemsize)
    return device.run_together(layout.blocks, layout.shared_bytes)


class NarrowSteps:
    """SGD steps of a problem, for batches of up to so many rows; MemoryError if the device has no room for it."""

    def __init__(self, problem: Problem, batch: int, device: Device) -> None:
        self._problem = problem
        self._batch = batch
        self._device = device
        self._layout = Layout.of(problem.network, batch, problem.dtype.itemsize)
        self._table = device.zeros(self._layout.table.shape, self._layout.table.dtype)
        device.copy_in(self._table, self._layout.table)
        # Of two batches: see narrow.cu.
        self._outputs = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._gradients = device.zeros(2 * batch * self._layout.width, problem.dtype)
        self._losses = device.zeros(2 * batch, np.dtype(np.float64))
        self._arrivals = device.zeros(1, np.dtype(np.uint32))

    def run(self, weights: Any, columns: Columns, order: Any, learning_rate: float, loss_sum: Any) -> None:
        """Take a step for every batch of `order`, the rows' places in `columns`.

        Changes `weights`, and adds the losses to `loss_sum`.
        """
        problem, layout = self._problem, self._layout
        factor, share = loss_factors(problem.loss, problem.network.out_features)
        most = _STEPS_PER_LAUNCH * self._batch
        for start in range(0, order.size, most):
            rows = order[start : start + most]
            self._device.copy_in(self._arrivals, np.zeros(1, np.uint32))
            self._device.launch_together(
                layout.blocks,
                layout.shared_bytes,
                weights,
                self._table,
                np.int32(len(problem.network.layers)),
                *typed(columns.inputs),
                np.int32(problem.network.relu_input),
                *columns.target_arguments,
                rows,
                np.int64(rows.size),
                np.int32(self._batch),
                np.int32(loss_code(problem.loss)),
                np.float64(factor),
                np.float64(share),
                problem.dtype.type(learning_rate),
                self._outputs,
                self._gradients,
                self._losses,
                self._arrivals,
                loss_sum,
            )
