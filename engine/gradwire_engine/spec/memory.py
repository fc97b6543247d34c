"""Estimates how much memory a job needs on a CPU worker, from its spec alone."""

from gradwire_engine.class_counts import BLOCK_BYTES
from gradwire_engine.network import Network
from gradwire_engine.plans.reference import EVALUATION_ROWS
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.stopping import rules_of
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_proto.v1.spec_pb2 import JobSpec

# The compiled plan stores matrices in panels whose rows have _LINE_BYTES bytes, and each thread evaluates
# _COMPILED_EVALUATION_ROWS rows at a time. These numbers are not imported, because importing them requires Numba.
_LINE_BYTES = 64
_COMPILED_EVALUATION_ROWS = 96
# The vectors outside the plan: the initial weights, and the copies of a checkpoint (an array, its bytes in the outbox,
# and the bytes in transit to the server).
_VECTORS = 4
# The weights of the best epoch: the copy that is held, and its bytes in the outbox.
_BEST_VECTORS = 2
_FLOAT64_BYTES = 8


def job_memory(spec: JobSpec, threads: int = 1) -> int:
    """Return a conservative estimate of the memory, in bytes, that a job adds to a worker.

    The data itself is not included, because workers memory-map tensor files, and the operating system can evict their
    pages.

    Args:
        spec: A resolved spec.
        threads: The number of threads that its plan can use.
    """
    net = network(spec.model)
    itemsize = numpy_dtype(spec.dtype).itemsize
    vector = net.size * itemsize
    train_rows = spec.train.inputs.shape[0]
    test_rows = spec.test.inputs.shape[0] if spec.HasField("test") else 0
    batch = min(spec.batch_size, train_rows)
    # Weights are drawn as float64, scaled and then rounded, one layer at a time.
    largest_layer = max(layer.size for layer in net.layers)
    start = vector + largest_layer * (2 * _FLOAT64_BYTES + itemsize)
    set_rows = max(train_rows, test_rows)
    # The reference plan needs more for the rows that it evaluates together than counting classes does afterwards.
    plan = max(
        _compiled_plan(net, itemsize, batch, threads) + _counting(net, itemsize, set_rows),
        _reference_plan(net, itemsize, batch, set_rows),
    )
    vectors = _VECTORS + (_BEST_VECTORS if rules_of(spec).needs_best else 0)
    return max(start + vector, plan + vectors * vector + _data_copies(spec, train_rows, test_rows))


def _compiled_plan(net: Network, itemsize: int, batch: int, threads: int) -> int:
    weights = sum(
        _padded(layer.out_features * itemsize) * (_padded(layer.in_features * itemsize) // itemsize + 1)
        + _padded(layer.out_features * itemsize)
        for layer in net.layers
    )
    # For each row: the values and gradients of all layers, the targets, and a line of ones.
    outputs = [_padded(layer.out_features * itemsize) for layer in net.layers]
    row = _padded(net.in_features * itemsize) + 2 * sum(outputs) + outputs[-1] + _LINE_BYTES + _FLOAT64_BYTES
    rows = (batch + 1) + threads * (_COMPILED_EVALUATION_ROWS + 1)
    return weights + rows * row + threads * 2 * _LINE_BYTES * net.widest


def _reference_plan(net: Network, itemsize: int, batch: int, set_rows: int) -> int:
    vector = net.size * itemsize
    largest_layer = max(layer.size for layer in net.layers) * itemsize
    # For each row: the inputs twice, and for each layer the output before and after the ReLU, its mask and the
    # gradient.
    row = (2 * net.in_features + sum(4 * layer.out_features for layer in net.layers)) * itemsize
    return 2 * vector + largest_layer + max(batch, min(EVALUATION_ROWS, set_rows)) * row


def _counting(net: Network, itemsize: int, set_rows: int) -> int:
    """Return the size of the inputs, the outputs and the temporary values of one layer for a block of rows."""
    row = net.widest * itemsize
    return 4 * max(row, min(BLOCK_BYTES, set_rows * row))


def _data_copies(spec: JobSpec, train_rows: int, test_rows: int) -> int:
    """Return the size of the row order, the classes or the spread of the targets, and converted inputs, in bytes."""
    outputs = spec.train.targets.shape[1] if len(spec.train.targets.shape) == 2 else 1
    return _FLOAT64_BYTES * (2 * train_rows + (train_rows + test_rows) * (2 + 3 * outputs))


def _padded(size: int) -> int:
    """Round a number of bytes up to a whole number of lines."""
    return -(-size // _LINE_BYTES) * _LINE_BYTES
