"""Runs the forward pass of a trained network in blocks of rows, without gradients and without copying the weights."""

from collections.abc import Iterator

import numpy as np

from gradwire_engine.backend import Array, array_module
from gradwire_engine.network import Network
from gradwire_engine.plans.reference import EVALUATION_ROWS

# A block has as many rows as the reference plan evaluates at a time, or fewer if the values of one layer would take
# more than this many bytes.
_BLOCK_BYTES = 32 << 20


def blocks_of(network: Network, rows: int, itemsize: int) -> Iterator[slice]:
    """Yield the rows of each block. The values of one layer take at most 32 MiB per block of several rows.

    Args:
        network: The network.
        rows: The total number of rows.
        itemsize: The size of a weight, in bytes.
    """
    step = max(1, min(EVALUATION_ROWS, _BLOCK_BYTES // (network.widest * itemsize)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def forward(network: Network, vector: Array, inputs: Array) -> Array:
    """Return the outputs of the last layer, bit-identical to those of the textbook classes.

    Args:
        network: The network.
        vector: The flat weight vector of the network, which can be a memory-mapped file. If it is a CuPy array, the
            GPU runs the forward pass.
        inputs: A numeric array of any dtype, of shape (rows, features), from the same array library.
    """
    vector = array_module(vector).asarray(vector)
    values = inputs * (inputs > 0) if network.relu_input else inputs
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in network.layers:
            W, b = layer.weights(vector)
            values = values.astype(W.dtype, copy=False) @ W.T
            values += b
            if layer.relu:
                values *= values > 0
    return values
