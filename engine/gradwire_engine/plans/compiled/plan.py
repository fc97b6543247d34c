"""The compiled plan, which keeps the weights in panels and runs the compiled loops on one or more threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.examples import Examples
from gradwire_engine.metrics import ClassSums, ErrorSums, Metrics
from gradwire_engine.plans.base import Problem
from gradwire_engine.plans.codes import loss_terms, source_code
from gradwire_engine.plans.compiled.code_cache import compiling

with compiling():
    from gradwire_engine.plans.compiled import loops
    from gradwire_engine.plans.compiled.arguments import Batches, Data, Model, Sums, Thread
    from gradwire_engine.plans.compiled.kernels import kernels
    from gradwire_engine.plans.compiled.layout import LayerWeights, Workspace, transpose_buffer

T = TypeVar("T")

# The number of rows that are evaluated together. It is small enough for all values to stay in the L2 cache.
_EVALUATION_ROWS = 96
# For an evaluation, the rows are divided into at most this many strips. Each strip is summed by one thread.
_MAX_STRIPS = 64
# Below this number of multiplications per thread, another thread does not make a step or an evaluation faster.
_MIN_WORK_PER_THREAD = 500_000
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class PlacedExamples:
    """A set of examples in the form that the loops use, and the arrays that its addresses point into."""

    data: Data
    source: Examples
    arrays: tuple[Array, ...]


class CompiledPlan:
    """A plan that runs on the CPU, with vector code that LLVM compiles for this processor."""

    name = "compiled"

    def __init__(self, problem: Problem, weights: Array, threads: int, registers: int) -> None:
        """Create the plan.

        Args:
            problem: The problem to train.
            weights: The flat vector of initial weights, of shape (network.size,). The plan copies it.
            threads: The maximum number of threads to use.
            registers: The total size of the processor's vector registers, in 64-byte lines.
        """
        self._network = problem.network
        self._dtype = problem.dtype
        self._max_threads = threads
        vector = weights.astype(problem.dtype, copy=False)
        self._weights = [LayerWeights(layer, vector) for layer in self._network.layers]
        self._loss = loss_terms(problem)
        self._model = Model(
            kernels=kernels(problem.dtype, registers),
            layers=np.array([layer.row() for layer in self._weights], np.int64),
            loss=self._loss.code,
            loss_share=self._loss.loss_share,
            relu_input=self._network.relu_input,
            zero=problem.dtype.type(0),
        )
        self._training: Workspace | None = None
        self._transposed = [transpose_buffer(self._network, problem.dtype) for _ in range(threads)]
        self._evaluation = [Workspace(self._network, problem.dtype, _EVALUATION_ROWS) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="plan") if threads > 1 else None

    def place(self, examples: Examples) -> PlacedExamples:
        """Return the examples without copying them. Only arrays that are not row-major are copied."""
        inputs, targets = np.ascontiguousarray(examples.inputs), np.ascontiguousarray(examples.targets)
        labels = targets.astype(np.int64) if targets.ndim == 1 else _NONE
        classes = _NONE
        if examples.classification:
            classes = labels if len(labels) else targets.argmax(axis=1)
        data = Data(_source(inputs), _source(targets), labels, classes)
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
        factor = -learning_rate * self._loss.gradient_factor
        with np.errstate(
            over="ignore"
        ):  # A learning rate that is too large makes the loss infinite, which is reported.
            scales = np.array([factor / count for count in (batch, last)], self._dtype)
        batches = Batches(rows, batch, scales)

        def run(thread: Thread) -> float:
            result: float = loops.train(self._model, scratch, placed.data, batches, loss_sum, thread)
            return result

        return self._on_threads(run, self._worthwhile_threads(batch))[0]

    def evaluate(self, placed: PlacedExamples) -> Metrics:
        """See `Plan.evaluate`."""
        examples, outputs = placed.source, self._network.out_features
        strips = min(_MAX_STRIPS, -(-examples.rows // _EVALUATION_ROWS))
        threads = min(strips, self._worthwhile_threads(examples.rows))
        sums = Sums(
            losses=np.zeros(strips),
            counts=np.zeros((threads, 3, outputs if examples.classification else 0), np.int64),
            errors=np.zeros((strips, 2, 0 if examples.classification else outputs)),
        )

        def run(thread: Thread) -> None:
            scratch = self._evaluation[thread.number].scratch
            loops.evaluate(self._model, scratch, placed.data, examples.rows, sums, thread)

        self._on_threads(run, threads)
        loss = float(sums.losses.sum()) * self._model.loss_share / examples.rows
        if examples.classification:
            return ClassSums(*sums.counts.sum(axis=0)).metrics(loss)
        return ErrorSums(*sums.errors.sum(axis=0)).metrics(loss, examples.rows, examples.spread)

    def predict(self, inputs: Array) -> Array:
        """See `Plan.predict`."""
        inputs = np.ascontiguousarray(inputs)
        data = Data(_source(inputs), _NONE, _NONE, _NONE)
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
        return max(1, min(self._max_threads, rows * self._network.size // _MIN_WORK_PER_THREAD))

    def _on_threads(self, run: Callable[[Thread], T], count: int) -> list[T]:
        """Call `run` on `count` threads and return the results. The loops release the global interpreter lock."""
        barrier = np.zeros(1, np.int64)
        threads = [
            Thread(index, count, barrier.ctypes.data, self._transposed[index].ctypes.data) for index in range(count)
        ]
        if self._pool is None or count == 1:
            return [run(threads[0])]
        others = [self._pool.submit(run, thread) for thread in threads[1:]]
        return [run(threads[0]), *(other.result() for other in others)]


def _source(array: Array) -> NDArray[np.int64]:
    """Return the address, dtype code and item size of a row-major array."""
    return np.array([array.ctypes.data, source_code(array.dtype), array.itemsize], np.int64)
