"""The CUDA plan: steps of SGD are captured once as a graph and replayed, or taken many in one launch (narrow.py).

Where there is no GPU, the tests run all of it, kernels too, on a CuPy that they make themselves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.metrics import ClassSums, ErrorSums, Metrics
from gradwire_engine.network import DenseLayer
from gradwire_engine.plans.base import Problem
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.device_examples import Columns
from gradwire_engine.plans.cuda.kernels import BLOCK, PARTS, SOURCES, loss_code, loss_factors, typed
from gradwire_engine.plans.cuda.persistent_kernel import NarrowSteps, fits

# Steps in one graph: a launch then costs little beside them.
_STEPS_PER_GRAPH = 16
# Rows that are evaluated at once.
_EVALUATION_ROWS = 8192
# What is left of the device's memory for others.
_SPARE_SHARE = 0.1
_INDEX = np.dtype(np.int64)


@dataclass(frozen=True)
class PlacedExamples:
    """A set that lies on the device, or, where that has no room for it, one that is brought there in slabs.

    slab_rows: how many rows are on the device at a time.
    """

    source: Examples
    inputs: Array
    targets: Array
    columns: Columns
    slab_rows: int

    @property
    def resident(self) -> bool:
        """Whether all of it lies on the device."""
        return self.slab_rows >= self.source.rows


class CudaPlan:
    """Runs on one GPU."""

    name = "cuda"

    def __init__(self, problem: Problem, weights: Array, device: Device) -> None:
        """Start from `weights`, the flat vector; MemoryError if the device has no room for them."""
        self._problem = problem
        self._network = problem.network
        self._dtype = problem.dtype
        self._device = device
        self._loss = loss_code(problem.loss)
        self._gradient_factor, self._loss_share = loss_factors(problem.loss, problem.network.out_features)
        self._need(2 * weights.nbytes, "the weights")
        self._vector = device.zeros(weights.size, problem.dtype)
        device.copy_in(self._vector, weights.astype(problem.dtype, copy=False))
        # The batch's place in `order`, and the sum of the losses.
        self._position = device.zeros(1, _INDEX)
        self._loss_sum = device.zeros(1, np.dtype(np.float64))
        self._room: _Room | None = None
        self._narrow: dict[int, NarrowSteps | None] = {}
        self._graphs: dict[tuple[object, ...], Callable[[], None]] = {}

    def place(self, examples: Examples) -> PlacedExamples:
        """Copy the set to the device if there is room; else only a slab of it is there at a time."""
        inputs, targets = _known_type(examples.inputs, self._dtype), _known_type(examples.targets, self._dtype)
        # First, so that the data takes what is left.
        self._make_room(min(_EVALUATION_ROWS, examples.rows), examples.rows)
        row_bytes = (inputs.nbytes + targets.nbytes) // examples.rows
        slab_rows = min(examples.rows, int(self._device.free_bytes() * (1 - _SPARE_SHARE)) // row_bytes)
        if slab_rows == 0:
            raise MemoryError(f"the GPU has no room for a single row of {row_bytes} bytes beside the model")
        columns = Columns(
            self._device.zeros((slab_rows, *inputs.shape[1:]), inputs.dtype),
            self._device.zeros((slab_rows, *targets.shape[1:]), targets.dtype),
            targets.ndim == 1,
        )
        placed = PlacedExamples(examples, inputs, targets, columns, slab_rows)
        if placed.resident:
            self._bring(placed, slice(None))
        return placed

    def train(
        self, placed: PlacedExamples, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """See `Plan.train`."""
        batch = min(batch_size, len(rows))
        self._make_room(batch, len(rows))
        self._device.copy_in(self._loss_sum, np.array([loss_sum]))
        narrow = self._narrow_steps(batch)
        for slab in self._slabs(placed, rows, batch):
            if narrow is not None:
                assert self._room is not None
                order = self._room.order[:slab]
                narrow.run(self._vector, placed.columns, order, learning_rate, self._loss_sum)
                continue
            whole, rest = divmod(slab, batch)
            many, few = divmod(whole, _STEPS_PER_GRAPH)
            for _ in range(many):
                self._steps(placed, batch, learning_rate, _STEPS_PER_GRAPH)()
            for _ in range(few):
                self._steps(placed, batch, learning_rate, 1)()
            if rest:
                self._steps(placed, rest, learning_rate, 1)()
        return float(self._device.copy_out(self._loss_sum)[0])

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples, outputs = placed.source, self._network.out_features
        block = min(_EVALUATION_ROWS, placed.slab_rows)
        self._make_room(block, examples.rows)
        assert self._room is not None
        self._device.copy_in(self._loss_sum, np.zeros(1))
        # Hits, predictions and examples of each class; or the parts of the sums of |error| and error^2.
        if examples.classification:
            sums = self._device.zeros((3, outputs), np.dtype(np.uint64))
            kernel, threads = "count_classes", block
        else:
            sums = self._device.zeros((2, PARTS, outputs), np.dtype(np.float64))
            kernel, threads = "sum_errors", PARTS * outputs
        for slab in self._slabs(placed, np.arange(examples.rows), block):
            for start in range(0, slab, block):
                rows = min(block, slab - start)
                self._forward(placed.columns.inputs, rows)
                where = (*placed.columns.target_arguments, self._room.order, self._position, np.int32(rows))
                self._device.launch(kernel, threads, self._room.outputs[-1], *where, np.int32(outputs), sums)
                self._losses(placed.columns, rows, train=False)
        loss = float(self._device.copy_out(self._loss_sum)[0]) / examples.rows
        totals = self._device.copy_out(sums)
        if examples.classification:
            return ClassSums(*totals.astype(np.int64)).metrics(loss)
        return ErrorSums(*totals.sum(axis=1)).metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        block = min(_EVALUATION_ROWS, len(inputs))
        self._make_room(block, block)
        assert self._room is not None
        inputs = _known_type(inputs, self._dtype)
        source = self._device.zeros((block, *inputs.shape[1:]), inputs.dtype)
        self._begin(np.arange(block))
        parts = []
        for start in range(0, len(inputs), block):
            part = inputs[start : start + block]
            self._device.copy_in(source, part)
            self._forward(source, len(part))
            outputs = self._device.copy_out(self._room.outputs[-1])[: len(part) * self._network.out_features]
            parts.append(outputs.reshape(len(part), -1))
        return np.concatenate(parts)

    def weights(self) -> Array:
        """See `Plan.weights`."""
        return self._device.copy_out(self._vector).copy()

    def _slabs(self, placed: PlacedExamples, rows: NDArray[np.int64], batch: int) -> Iterator[int]:
        """Have rows at hand in their order, as many whole batches at a time as there is room for; yield how many."""
        if placed.resident:
            self._begin(rows)
            yield len(rows)
            return
        whole = max(batch, placed.slab_rows // batch * batch)
        if whole > placed.slab_rows:
            raise MemoryError(f"the GPU has room for {placed.slab_rows} rows, fewer than the {batch} of a batch")
        for start in range(0, len(rows), whole):
            slab = rows[start : start + whole]
            self._bring(placed, slab)
            self._begin(np.arange(len(slab)))
            yield len(slab)

    def _bring(self, placed: PlacedExamples, rows: slice | NDArray[np.int64]) -> None:
        self._device.copy_in(placed.columns.inputs, placed.inputs[rows])
        self._device.copy_in(placed.columns.targets, placed.targets[rows])

    def _begin(self, order: NDArray[np.int64]) -> None:
        assert self._room is not None
        self._device.copy_in(self._room.order, order)
        self._device.copy_in(self._position, np.zeros(1, np.int64))

    def _narrow_steps(self, batch: int) -> NarrowSteps | None:
        """Return what takes steps with batches of so many rows in one launch, or None where graphs are the way."""
        if batch not in self._narrow:
            narrow = fits(self._problem.network, batch, self._dtype.itemsize, self._device)
            self._narrow[batch] = NarrowSteps(self._problem, batch, self._device) if narrow else None
        return self._narrow[batch]

    def _steps(self, placed: PlacedExamples, rows: int, learning_rate: float, count: int) -> Callable[[], None]:
        """Return the graph of so many steps, captured when it is first needed."""
        key = (placed.columns, rows, learning_rate, count)
        if key not in self._graphs:

            def steps() -> None:
                for _ in range(count):
                    self._step(placed.columns, rows, learning_rate)

            self._graphs[key] = self._device.capture(steps)
        return self._graphs[key]

    def _step(self, columns: Columns, rows: int, learning_rate: float) -> None:
        """Forward, loss, backward and update, for the batch at `position`. Nothing of it depends on the host."""
        assert self._room is not None
        room, layers = self._room, self._network.layers
        inputs = self._forward(columns.inputs, rows)
        self._losses(columns, rows, train=True)
        gradient = _matrix(room.outputs[-1], rows, layers[-1].out_features)
        rate = -learning_rate
        for number in range(len(layers) - 1, -1, -1):
            layer = layers[number]
            W, b = self._weights_of(layer)
            if number:
                # Through the weights as they were in the forward pass.
                below = _matrix(room.gradients[number - 1], rows, layer.in_features)
                self._device.multiply(gradient, W, below, a_turned=False, b_turned=False, alpha=1, beta=0)
                if layers[number - 1].relu:
                    count = rows * layer.in_features
                    self._device.launch("mask", count, below, inputs[number], np.int64(count))
            ones = _matrix(room.ones, 1, rows)
            self._device.multiply(ones, gradient, b, a_turned=False, b_turned=False, alpha=rate, beta=1)
            self._device.multiply(gradient, inputs[number], W, a_turned=True, b_turned=False, alpha=rate, beta=1)
            if number:
                gradient = below

    def _forward(self, source: Any, rows: int) -> list[Any]:
        """Run the rows at `position` through the layers; return each layer's input."""
        assert self._room is not None
        room, features = self._room, self._network.in_features
        relu = np.int32(self._network.relu_input)
        flowing = _matrix(room.inputs, rows, features)
        where = (room.order, self._position, np.int32(rows), np.int32(features))
        self._device.launch("gather", rows * features, *typed(source), *where, relu, flowing)
        inputs = []
        for layer, output in zip(self._network.layers, room.outputs, strict=True):
            W, b = self._weights_of(layer)
            inputs.append(flowing)
            out = _matrix(output, rows, layer.out_features)
            self._device.multiply(flowing, W, out, a_turned=False, b_turned=True, alpha=1, beta=0)
            width = np.int32(layer.out_features)
            self._device.launch("add_bias", out.size, out, b, np.int32(rows), width, np.int32(layer.relu))
            flowing = out
        return inputs

    def _losses(self, columns: Columns, rows: int, *, train: bool) -> None:
        """Add the losses of the rows at `position`, and go on to those after them."""
        assert self._room is not None
        room = self._room
        factor = self._dtype.type(self._gradient_factor / rows)
        where = (*columns.target_arguments, room.order, self._position, np.int32(rows))
        relu = np.int32(self._network.layers[-1].relu)
        how = (np.int32(self._network.out_features), np.int32(self._loss), relu, factor, np.int32(train))
        self._device.launch("losses", rows, room.outputs[-1], *where, *how, room.row_losses)
        share = np.float64(self._loss_share)
        self._device.launch("end_step", BLOCK, room.row_losses, np.int32(rows), share, self._loss_sum, self._position)

    def _weights_of(self, layer: DenseLayer) -> tuple[Any, Any]:
        W, b = layer.weights(self._vector)
        return W, b.reshape(1, layer.out_features)

    def _make_room(self, rows: int, order: int) -> None:
        """Have room for batches of so many rows, and an order of so many."""
        if self._room is not None and self._room.rows >= rows and self._room.order.size >= order:
            return
        if self._room is not None:
            rows, order = max(rows, self._room.rows), max(order, self._room.order.size)
        self._room = None
        self._graphs.clear()  # They know the old room's addresses.
        self._need(self._room_bytes(rows) + 8 * order, f"batches of {rows} rows")
        self._room = _Room(self._device, self._network.layers, self._dtype, rows, order)

    def _room_bytes(self, rows: int) -> int:
        widths = self._network.in_features + 2 * sum(layer.out_features for layer in self._network.layers)
        return rows * ((widths + 1) * self._dtype.itemsize + 8)

    def _need(self, count: int, what: str) -> None:
        free = self._device.free_bytes()
        if count > free:
            raise MemoryError(f"{what} need {count >> 20} MiB of the GPU's memory, which has {free >> 20} MiB left")


class _Room:
    """What a step works in, for up to so many rows."""

    def __init__(
        self, device: Device, layers: tuple[DenseLayer, ...], dtype: "np.dtype[Any]", rows: int, order: int
    ) -> None:
        self.rows = rows
        self.order = device.zeros(order, _INDEX)
        self.inputs = device.zeros(rows * layers[0].in_features, dtype)
        self.outputs = [device.zeros(rows * layer.out_features, dtype) for layer in layers]
        self.gradients = [device.zeros(rows * layer.out_features, dtype) for layer in layers[:-1]]
        self.row_losses = device.zeros(rows, np.dtype(np.float64))
        self.ones = device.zeros(rows, dtype)
        device.copy_in(self.ones, np.ones(rows, dtype))


def _matrix(array: Any, rows: int, columns: int) -> Any:
    """The beginning of an array, as a matrix."""
    return array[: rows * columns].reshape(rows, columns)


def _known_type(array: Array, dtype: "np.dtype[Any]") -> Array:
    """Return the array in a type that the kernels read."""
    return array if array.dtype.name in SOURCES else array.astype(dtype)
