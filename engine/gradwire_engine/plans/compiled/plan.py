"""The compiled plan: the problem's weights in panels, and the loops of loops.py over them on one or more threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.losses import MSE
from gradwire_engine.metrics import ClassSums, ErrorSums, Metrics
from gradwire_engine.plans.base import Problem
from gradwire_engine.plans.compiled import loops
from gradwire_engine.plans.compiled.kernels import kernels
from gradwire_engine.plans.compiled.layout import LayerWeights, Workspace
from gradwire_engine.plans.compiled.tiles import SOURCES

T = TypeVar("T")

# Rows that are evaluated together: few enough that all their values stay in the second cache.
_EVALUATION_ROWS = 96
# The rows of a set are split into at most so many strips, each summed up by one thread.
_MOST_STRIPS = 64
# Below so many multiplications a step or an evaluation is not worth a second thread.
_LEAST_WORK_PER_THREAD = 200_000
_NO_CLASSES = np.empty(0, np.int64)


@dataclass(frozen=True)
class PlacedExamples:
    """A set as the loops read it: row-major matrices by address, the code of their dtype, and the size of an item.

    labels: the class of each row where the targets are class indices, else empty. classes: the same for a one-hot
    matrix too, and empty where nothing is classified.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: NDArray[np.int64]
    source: Examples
    # What the addresses point to.
    memory: tuple[Array, Array]


def _loss_terms(problem: Problem) -> tuple[int, float, float]:
    """Return the loss's code, its gradient's factor beside 1 / rows, and a row's share in the batch's loss."""
    if isinstance(problem.loss, MSE):
        outputs = problem.network.out_features
        return loops.SQUARED_ERROR, 2 / outputs, 1 / outputs
    return (loops.LOGITS if problem.loss.from_logits else loops.PROBABILITIES), 1.0, 1.0


class CompiledPlan:
    """Runs on the CPU's vector units, through code that LLVM compiles for this processor."""

    name = "compiled"

    def __init__(self, problem: Problem, weights: Array, threads: int, registers: int) -> None:
        """Start from `weights`, the flat vector. registers: how many lines of 64 bytes the vector registers hold."""
        self._network = problem.network
        self._dtype = problem.dtype
        self._zero = problem.dtype.type(0)
        self._loss, self._gradient_factor, self._loss_share = _loss_terms(problem)
        self._threads = threads
        self._kernels = kernels(problem.dtype, registers)
        self._weights = [LayerWeights(layer, weights.astype(problem.dtype, copy=False)) for layer in self._network.layers]
        self._layers = np.array([layer.row() for layer in self._weights], np.int64)
        self._workspace: Workspace | None = None
        self._evaluation = [self._new_workspace(_EVALUATION_ROWS) for _ in range(threads)]
        self._transposed = [workspace.transposed.ctypes.data for workspace in self._evaluation]
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="plan") if threads > 1 else None

    def place(self, examples: Examples) -> PlacedExamples:
        """The arrays stay where they are; they are copied only where they are not row-major."""
        targets = examples.targets
        labels = targets.astype(np.int64) if targets.ndim == 1 else _NO_CLASSES
        memory = np.ascontiguousarray(examples.inputs), np.ascontiguousarray(targets)
        classes = _NO_CLASSES
        if examples.classification:
            classes = labels if len(labels) else targets.argmax(axis=1)
        return PlacedExamples(*map(_source, memory), labels, classes, examples, memory)

    def train(
        self, placed: PlacedExamples, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """See `Plan.train`."""
        rows = np.ascontiguousarray(rows)
        batch = min(batch_size, len(rows))
        if self._workspace is None or len(self._workspace.losses) < batch:
            self._workspace = self._new_workspace(batch)
        space = self._workspace
        last = len(rows) % batch or batch
        scales = np.array([-learning_rate * self._gradient_factor / count for count in (batch, last)], self._dtype)
        threads = self._worthwhile_threads(batch * self._network.size)
        barrier = np.zeros(1, np.int64)

        def run(thread: int) -> float:
            result: float = loops.train(
                self._kernels, placed.inputs, placed.targets, placed.labels, rows, batch, self._loss,
                self._network.relu_input, self._layers, space.table, space.panel_bytes, space.targets.ctypes.data,
                space.ones.ctypes.data, self._transposed[thread], space.losses, barrier.ctypes.data, thread, threads,
                scales, self._loss_share, loss_sum, self._zero,
            )  # fmt: skip
            return result

        return self._on_threads(run, threads)[0]

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples, outputs = placed.source, self._network.out_features
        strips = min(_MOST_STRIPS, -(-examples.rows // _EVALUATION_ROWS))
        strip_losses = np.zeros(strips)
        threads = min(strips, self._worthwhile_threads(examples.rows * self._network.size))
        class_sums = np.zeros((threads, 3, outputs if examples.classification else 0), np.int64)
        error_sums = np.zeros((strips, 2, 0 if examples.classification else outputs))

        def run(thread: int) -> None:
            space = self._evaluation[thread]
            loops.evaluate(
                self._kernels, placed.inputs, placed.targets, placed.labels, placed.classes, examples.rows, self._loss,
                self._network.relu_input, self._layers, space.table, space.panel_bytes, space.targets.ctypes.data,
                strips, strip_losses, class_sums, error_sums, space.losses, thread, threads, self._zero,
            )  # fmt: skip

        self._on_threads(run, threads)
        loss = float(strip_losses.sum()) * self._loss_share / examples.rows
        if examples.classification:
            return ClassSums(*class_sums.sum(axis=0)).metrics(loss)
        return ErrorSums(*error_sums.sum(axis=0)).metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        memory = np.ascontiguousarray(inputs)
        source = _source(memory)
        space = self._evaluation[0]
        blocks = []
        for start in range(0, len(inputs), _EVALUATION_ROWS):
            order = np.arange(start, min(start + _EVALUATION_ROWS, len(inputs)))
            loops.forward(
                self._kernels, source, order, self._network.relu_input, self._layers, space.table, space.panel_bytes,
                self._zero,
            )  # fmt: skip
            blocks.append(space.outputs(len(order), self._network.out_features))
        return np.concatenate(blocks)

    def weights(self) -> Array:
        """See `Plan.weights`."""
        vector = np.empty(self._network.size, self._dtype)
        for layer in self._weights:
            layer.write(vector)
        return vector

    def _new_workspace(self, rows: int) -> Workspace:
        return Workspace.of(self._network, self._dtype, rows)

    def _worthwhile_threads(self, multiplications: int) -> int:
        return max(1, min(self._threads, multiplications // _LEAST_WORK_PER_THREAD))

    def _on_threads(self, run: Callable[[int], T], threads: int) -> list[T]:
        """Run the same on each thread; the loops leave Python's lock to others meanwhile."""
        if self._pool is None or threads == 1:
            return [run(0)]
        others = [self._pool.submit(run, thread) for thread in range(1, threads)]
        return [run(0), *(other.result() for other in others)]


def _source(array: Array) -> NDArray[np.int64]:
    """Return where a row-major array is, the code of its dtype, and the size of an item."""
    return np.array([array.ctypes.data, SOURCES.index(array.dtype.name), array.itemsize], np.int64)
