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
from gradwire_engine.plans.compiled.code_cache import compiling

with compiling():
    from gradwire_engine.plans.compiled import loops
    from gradwire_engine.plans.compiled.kernels import kernels
    from gradwire_engine.plans.compiled.layout import LayerWeights, Workspace, room_to_transpose
    from gradwire_engine.plans.compiled.vector_intrinsics import SOURCES

T = TypeVar("T")

# Rows that are evaluated together: few enough that all their values stay in the second cache.
_EVALUATION_ROWS = 96
# The rows of a set are split into at most so many strips, each summed up by one thread.
_MOST_STRIPS = 64
# Below so many multiplications a step or an evaluation is not worth a second thread, even where cores are far apart.
_LEAST_WORK_PER_THREAD = 500_000
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class PlacedExamples:
    """A set as the loops read it, and the arrays that it points into."""

    data: loops.Data
    source: Examples
    arrays: tuple[Array, ...]


class CompiledPlan:
    """Runs on the CPU's vector units, through code that LLVM compiles for this processor."""

    name = "compiled"

    def __init__(self, problem: Problem, weights: Array, threads: int, registers: int) -> None:
        """Start from `weights`, the flat vector. registers: how many lines of 64 bytes the vector registers hold."""
        self._network = problem.network
        self._dtype = problem.dtype
        self._threads = threads
        vector = weights.astype(problem.dtype, copy=False)
        self._weights = [LayerWeights(layer, vector) for layer in self._network.layers]
        loss, self._gradient_factor, loss_share = _loss_terms(problem)
        self._model = loops.Model(
            kernels(problem.dtype, registers),
            np.array([layer.row() for layer in self._weights], np.int64),
            loss,
            loss_share,
            self._network.relu_input,
            problem.dtype.type(0),
        )
        self._training: Workspace | None = None
        self._transposed = [room_to_transpose(self._network, problem.dtype) for _ in range(threads)]
        self._transposed_at = [room.ctypes.data for room in self._transposed]
        self._evaluation = [Workspace(self._network, problem.dtype, _EVALUATION_ROWS) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="plan") if threads > 1 else None

    def place(self, examples: Examples) -> PlacedExamples:
        """The arrays stay where they are; they are copied only where they are not row-major."""
        inputs, targets = np.ascontiguousarray(examples.inputs), np.ascontiguousarray(examples.targets)
        labels = targets.astype(np.int64) if targets.ndim == 1 else _NONE
        classes = _NONE
        if examples.classification:
            classes = labels if len(labels) else targets.argmax(axis=1)
        data = loops.Data(_source(inputs), _source(targets), labels, classes)
        return PlacedExamples(data, examples, (inputs, targets))

    def train(
        self, placed: PlacedExamples, rows: NDArray[np.int64], batch_size: int, learning_rate: float, loss_sum: float
    ) -> float:
        """See `Plan.train`."""
        batch = min(batch_size, len(rows))
        if self._training is None or self._training.rows < batch:
            self._training = Workspace(self._network, self._dtype, batch)
        scratch = self._training.scratch
        last = len(rows) % batch or batch
        scales = np.array([-learning_rate * self._gradient_factor / count for count in (batch, last)], self._dtype)
        threads = self._worthwhile_threads(batch)
        barrier = np.zeros(1, np.int64)
        meeting = barrier.ctypes.data

        def run(thread: int) -> float:
            room = self._transposed_at[thread]
            result: float = loops.train(
                self._model, scratch, placed.data, rows, batch, scales, loss_sum, room, meeting, thread, threads
            )
            return result

        return self._on_threads(run, threads)[0]

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples, outputs = placed.source, self._network.out_features
        strips = min(_MOST_STRIPS, -(-examples.rows // _EVALUATION_ROWS))
        threads = min(strips, self._worthwhile_threads(examples.rows))
        strip_losses = np.zeros(strips)
        class_sums = np.zeros((threads, 3, outputs if examples.classification else 0), np.int64)
        error_sums = np.zeros((strips, 2, 0 if examples.classification else outputs))

        def run(thread: int) -> None:
            scratch = self._evaluation[thread].scratch
            loops.evaluate(
                self._model, scratch, placed.data, examples.rows, strip_losses, class_sums, error_sums, thread, threads
            )

        self._on_threads(run, threads)
        loss = float(strip_losses.sum()) * self._model.loss_share / examples.rows
        if examples.classification:
            return ClassSums(*class_sums.sum(axis=0)).metrics(loss)
        return ErrorSums(*error_sums.sum(axis=0)).metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        inputs = np.ascontiguousarray(inputs)
        data = loops.Data(_source(inputs), _NONE, _NONE, _NONE)
        workspace = self._evaluation[0]
        blocks = []
        for start in range(0, len(inputs), workspace.rows):
            order = np.arange(start, min(start + workspace.rows, len(inputs)))
            loops.forward(self._model, workspace.scratch, data, order)
            blocks.append(workspace.outputs(len(order), self._network.out_features))
        return np.concatenate(blocks)

    def weights(self) -> Array:
        """See `Plan.weights`."""
        vector = np.empty(self._network.size, self._dtype)
        for layer in self._weights:
            layer.write(vector)
        return vector

    def _worthwhile_threads(self, rows: int) -> int:
        return max(1, min(self._threads, rows * self._network.size // _LEAST_WORK_PER_THREAD))

    def _on_threads(self, run: Callable[[int], T], threads: int) -> list[T]:
        """Run the same on each thread; the loops leave Python's lock to others meanwhile."""
        if self._pool is None or threads == 1:
            return [run(0)]
        others = [self._pool.submit(run, thread) for thread in range(1, threads)]
        return [run(0), *(other.result() for other in others)]


def _loss_terms(problem: Problem) -> tuple[int, float, float]:
    """Return the loss's code, its gradient's factor beside 1 / rows, and a row's share in the batch's loss."""
    if isinstance(problem.loss, MSE):
        outputs = problem.network.out_features
        return loops.SQUARED_ERROR, 2 / outputs, 1 / outputs
    return (loops.LOGITS if problem.loss.from_logits else loops.PROBABILITIES), 1.0, 1.0


def _source(array: Array) -> NDArray[np.int64]:
    """Return where a row-major array is, the code of its dtype, and the size of an item."""
    return np.array([array.ctypes.data, SOURCES.index(array.dtype.name), array.itemsize], np.int64)
