"""The CUDA plan, which runs SGD steps as CUDA graphs, or many steps in one launch of the persistent kernel.

On a machine without a GPU, the tests run the whole plan, including the kernels, with a stand-in for CuPy
(tests/fake_cupy.py).
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
from gradwire_engine.plans.codes import SOURCE_TYPES, loss_terms, source_code
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.device_examples import DeviceExamples
from gradwire_engine.plans.cuda.kernels import BLOCK, PARTS, GatherArguments, LossesArguments, MetricsArguments
from gradwire_engine.plans.cuda.persistent_kernel import PersistentKernel, suits

# The number of steps in a graph. It is large enough to keep the relative cost of a launch small.
_STEPS_PER_GRAPH = 16
# The number of rows that are evaluated together.
_EVALUATION_ROWS = 8192
# The share of free device memory to leave unused.
_SPARE_SHARE = 0.1
_INDEX = np.dtype(np.int64)


@dataclass(frozen=True)
class PlacedExamples:
    """A set of examples for the GPU. If the set does not fit into device memory, it is copied there in chunks.

    Attributes:
        source: The original examples.
        inputs: The inputs in host memory, with a dtype that the kernels can read.
        targets: The targets in host memory, with a dtype that the kernels can read.
        on_device: The set on the device, or the current chunk of it.
        chunk_rows: The number of rows in a chunk.
    """

    source: Examples
    inputs: Array
    targets: Array
    on_device: DeviceExamples
    chunk_rows: int

    @property
    def resident(self) -> bool:
        """Whether the whole set is on the device."""
        return self.chunk_rows >= self.source.rows


class CudaPlan:
    """A plan that runs on one NVIDIA GPU."""

    name = "cuda"

    def __init__(self, problem: Problem, weights: Array, device: Device) -> None:
        """Copy the weights to the device.

        Args:
            problem: The problem to train.
            weights: The flat vector of initial weights, of shape (network.size,).
            device: The GPU.

        Raises:
            MemoryError: The device does not have enough memory for the weights.
        """
        self._problem = problem
        self._network = problem.network
        self._dtype = problem.dtype
        self._device = device
        self._loss = loss_terms(problem)
        self._require(2 * weights.nbytes, "the weights")
        self._vector = device.zeros(weights.size, problem.dtype)
        device.copy_in(self._vector, weights.astype(problem.dtype, copy=False))
        # The position of the current batch in the row order, and the sum of the losses.
        self._position = device.zeros(1, _INDEX)
        self._loss_sum = device.zeros(1, np.dtype(np.float64))
        self._buffers: _Buffers | None = None
        self._persistent: dict[int, PersistentKernel | None] = {}
        self._graphs: dict[tuple[object, ...], Callable[[], None]] = {}

    def place(self, examples: Examples) -> PlacedExamples:
        """Copy the examples to the device. If they do not fit, they are copied later, in chunks, when they are used."""
        inputs, targets = _readable(examples.inputs, self._dtype), _readable(examples.targets, self._dtype)
        # Allocate the buffers first, so that the data uses only the remaining memory.
        self._allocate(min(_EVALUATION_ROWS, examples.rows), examples.rows)
        row_bytes = (inputs.nbytes + targets.nbytes) // examples.rows
        chunk_rows = min(examples.rows, int(self._device.free_bytes() * (1 - _SPARE_SHARE)) // row_bytes)
        if chunk_rows == 0:
            raise MemoryError(f"the model leaves no GPU memory for a single row of {row_bytes} bytes")
        on_device = DeviceExamples(
            self._device.zeros((chunk_rows, *inputs.shape[1:]), inputs.dtype),
            self._device.zeros((chunk_rows, *targets.shape[1:]), targets.dtype),
        )
        placed = PlacedExamples(examples, inputs, targets, on_device, chunk_rows)
        if placed.resident:
            self._upload(placed, slice(None))
        return placed

    def train(
        self, placed: PlacedExamples, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """See `Plan.train`."""
        batch = min(batch_size, len(rows))
        buffers = self._allocate(batch, len(rows))
        self._device.copy_in(self._loss_sum, np.array([loss_sum]))
        persistent = self._persistent_kernel(batch)
        for count in self._chunks(placed, rows, batch):
            if persistent is not None:
                order = buffers.order[:count]
                persistent.train(self._vector, placed.on_device, order, learning_rate, self._loss_sum)
            else:
                self._run_graphs(placed, count, batch, learning_rate)
        return float(self._device.copy_out(self._loss_sum)[0])

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples, outputs = placed.source, self._network.out_features
        block = min(_EVALUATION_ROWS, placed.chunk_rows)
        self._allocate(block, examples.rows)
        self._device.copy_in(self._loss_sum, np.zeros(1))
        if examples.classification:  # The three counts of ClassSums.
            sums = self._device.zeros((3, outputs), np.dtype(np.uint64))
        else:  # The two sums of ErrorSums, for each part of the rows.
            sums = self._device.zeros((2, PARTS, outputs), np.dtype(np.float64))
        for count in self._chunks(placed, np.arange(examples.rows), block):
            for start in range(0, count, block):
                rows = min(block, count - start)
                self._forward(placed.on_device.inputs, rows)
                self._add_metrics(placed, rows, sums)
                self._losses(placed.on_device, rows, train=False)
        loss = float(self._device.copy_out(self._loss_sum)[0]) / examples.rows
        totals = self._device.copy_out(sums)
        if examples.classification:
            return ClassSums(*totals.astype(np.int64)).metrics(loss)
        return ErrorSums(*totals.sum(axis=1)).metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        block = min(_EVALUATION_ROWS, len(inputs))
        buffers = self._allocate(block, block)
        inputs = _readable(inputs, self._dtype)
        source = self._device.zeros((block, *inputs.shape[1:]), inputs.dtype)
        self._set_order(np.arange(block))
        parts = []
        for start in range(0, len(inputs), block):
            part = inputs[start : start + block]
            self._device.copy_in(source, part)
            self._forward(source, len(part))
            outputs = self._device.copy_out(buffers.outputs[-1])[: len(part) * self._network.out_features]
            parts.append(outputs.reshape(len(part), -1))
        return np.concatenate(parts)

    def weights(self) -> Array:
        """See `Plan.weights`."""
        return self._device.copy_out(self._vector).copy()

    def _chunks(self, placed: PlacedExamples, rows: NDArray[np.int64], batch: int) -> Iterator[int]:
        """Copy the rows to the device in order, in chunks of whole batches, and yield the number of rows in each chunk.

        If the whole set is already on the device, only the order is copied, and there is one chunk.
        """
        if placed.resident:
            self._set_order(rows)
            yield len(rows)
            return
        chunk = placed.chunk_rows // batch * batch
        if chunk == 0:
            raise MemoryError(
                f"the GPU has memory for {placed.chunk_rows} rows, fewer than a batch of {batch}: use smaller batches"
            )
        for start in range(0, len(rows), chunk):
            chosen = rows[start : start + chunk]
            self._upload(placed, chosen)
            self._set_order(np.arange(len(chosen)))
            yield len(chosen)

    def _upload(self, placed: PlacedExamples, rows: slice | NDArray[np.int64]) -> None:
        self._device.copy_in(placed.on_device.inputs, placed.inputs[rows])
        self._device.copy_in(placed.on_device.targets, placed.targets[rows])

    def _set_order(self, order: NDArray[np.int64]) -> None:
        self._device.copy_in(self._allocated.order, order)
        self._device.copy_in(self._position, np.zeros(1, np.int64))

    def _persistent_kernel(self, batch: int) -> PersistentKernel | None:
        """Return the persistent kernel for batches of `batch` rows, or None if the plan uses graphs for them."""
        if batch not in self._persistent:
            suitable = suits(self._network, batch, self._dtype.itemsize, self._device)
            self._persistent[batch] = PersistentKernel(self._problem, batch, self._device) if suitable else None
        return self._persistent[batch]

    def _run_graphs(self, placed: PlacedExamples, rows: int, batch: int, learning_rate: float) -> None:
        """Take one step for each batch of the next `rows` rows in the row order."""
        whole_batches, rest = divmod(rows, batch)
        many, few = divmod(whole_batches, _STEPS_PER_GRAPH)
        for _ in range(many):
            self._graph(placed, batch, learning_rate, _STEPS_PER_GRAPH)()
        for _ in range(few):
            self._graph(placed, batch, learning_rate, 1)()
        if rest:
            self._graph(placed, rest, learning_rate, 1)()

    def _graph(self, placed: PlacedExamples, rows: int, learning_rate: float, steps: int) -> Callable[[], None]:
        """Return a graph of `steps` steps. Each graph is captured when it is first needed."""
        key = (placed.on_device, rows, learning_rate, steps)
        if key not in self._graphs:

            def work() -> None:
                for _ in range(steps):
                    self._step(placed.on_device, rows, learning_rate)

            self._graphs[key] = self._device.capture(work)
        return self._graphs[key]

    def _step(self, examples: DeviceExamples, rows: int, learning_rate: float) -> None:
        """Run the forward pass, loss, backward pass and update for the batch at `position`, without host data."""
        buffers, layers = self._allocated, self._network.layers
        inputs = self._forward(examples.inputs, rows)
        self._losses(examples, rows, train=True)
        gradient = _matrix(buffers.outputs[-1], rows, layers[-1].out_features)
        rate = -learning_rate
        for number in range(len(layers) - 1, -1, -1):
            layer = layers[number]
            W, b = self._weights_of(layer)
            if number:
                # This needs the weights from before the update.
                below = _matrix(buffers.gradients[number - 1], rows, layer.in_features)
                self._device.multiply(gradient, W, below, transpose_a=False, transpose_b=False, alpha=1, beta=0)
                if layers[number - 1].relu:
                    count = rows * layer.in_features
                    self._device.launch("mask", count, (below, inputs[number], np.int64(count)))
            ones = _matrix(buffers.ones, 1, rows)
            self._device.multiply(ones, gradient, b, transpose_a=False, transpose_b=False, alpha=rate, beta=1)
            self._device.multiply(gradient, inputs[number], W, transpose_a=True, transpose_b=False, alpha=rate, beta=1)
            if number:
                gradient = below

    def _forward(self, source: Any, rows: int) -> list[Any]:
        """Pass the rows at `position` through all layers, and return the input of each layer."""
        buffers, features = self._allocated, self._network.in_features
        values = _matrix(buffers.inputs, rows, features)
        arguments = GatherArguments(
            source=source,
            source_type=source_code(source.dtype),
            order=buffers.order,
            position=self._position,
            rows=rows,
            width=features,
            relu=self._network.relu_input,
            out=values,
        )
        self._device.launch("gather", rows * features, arguments)
        inputs = []
        for layer, output in zip(self._network.layers, buffers.outputs, strict=True):
            W, b = self._weights_of(layer)
            inputs.append(values)
            out = _matrix(output, rows, layer.out_features)
            self._device.multiply(values, W, out, transpose_a=False, transpose_b=True, alpha=1, beta=0)
            self._device.launch("add_bias", out.size, (out, b, rows, layer.out_features, layer.relu))
            values = out
        return inputs

    def _losses(self, examples: DeviceExamples, rows: int, *, train: bool) -> None:
        """Add the losses of the rows at `position` to the sum of the losses, and advance `position`."""
        buffers = self._allocated
        arguments = LossesArguments(
            outputs=buffers.outputs[-1],
            targets=examples.targets,
            target_type=examples.target_type,
            is_labels=examples.is_labels,
            order=buffers.order,
            position=self._position,
            rows=rows,
            width=self._network.out_features,
            loss=self._loss.code,
            relu=self._network.layers[-1].relu,
            factor=self._dtype.type(self._loss.gradient_factor / rows),
            train=train,
            row_losses=buffers.row_losses,
        )
        self._device.launch("losses", rows, arguments)
        share = np.float64(self._loss.loss_share)
        self._device.launch("end_step", BLOCK, (buffers.row_losses, rows, share, self._loss_sum, self._position))

    def _add_metrics(self, placed: PlacedExamples, rows: int, sums: Any) -> None:
        """Add the results for the rows at `position` to the evaluation sums."""
        buffers, outputs, examples = self._allocated, self._network.out_features, placed.on_device
        arguments = MetricsArguments(
            outputs=buffers.outputs[-1],
            targets=examples.targets,
            target_type=examples.target_type,
            is_labels=examples.is_labels,
            order=buffers.order,
            position=self._position,
            rows=rows,
            width=outputs,
            sums=sums,
        )
        if placed.source.classification:
            self._device.launch("count_classes", rows, arguments)
        else:
            self._device.launch("sum_errors", PARTS * outputs, arguments)

    def _weights_of(self, layer: DenseLayer) -> tuple[Any, Any]:
        W, b = layer.weights(self._vector)
        return W, b.reshape(1, layer.out_features)

    @property
    def _allocated(self) -> "_Buffers":
        assert self._buffers is not None, "_allocate comes first"
        return self._buffers

    def _allocate(self, rows: int, order: int) -> "_Buffers":
        """Return buffers for batches of at least `rows` rows and a row order of at least `order` rows."""
        present = self._buffers
        if present is not None and present.rows >= rows and present.order.size >= order:
            return present
        if present is not None:
            rows, order = max(rows, present.rows), max(order, present.order.size)
        del present
        self._buffers = None
        self._graphs.clear()  # The graphs contain the addresses of the old buffers.
        self._require(self._buffer_bytes(rows) + _INDEX.itemsize * order, f"batches of {rows} rows")
        self._buffers = _Buffers(self._device, self._network.layers, self._dtype, rows, order)
        return self._buffers

    def _buffer_bytes(self, rows: int) -> int:
        widths = self._network.in_features + 2 * sum(layer.out_features for layer in self._network.layers)
        return rows * ((widths + 1) * self._dtype.itemsize + 8)

    def _require(self, count: int, what: str) -> None:
        free = self._device.free_bytes()
        if count > free:
            raise MemoryError(f"{what} need {count >> 20} MiB of GPU memory, but only {free >> 20} MiB are free")


class _Buffers:
    """The device buffers for a step with up to `rows` rows."""

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
    """Return the first rows * columns elements of a flat array as a matrix."""
    return array[: rows * columns].reshape(rows, columns)


def _readable(array: Array, dtype: "np.dtype[Any]") -> Array:
    """Return the array, converted to `dtype` if the kernels cannot read its own dtype."""
    return array if array.dtype.name in SOURCE_TYPES else array.astype(dtype)
