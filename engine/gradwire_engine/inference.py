"""Runs a trained network forward in blocks of rows, without gradients and without a copy of its weights."""

from collections.abc import Iterator

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.network import Network
from gradwire_engine.plans.reference import EVALUATION_ROWS

# A block has as many rows as the reference plan evaluates at a time, or fewer if the values of one layer would take
# more than this many bytes.
_BLOCK_BYTES = 32 << 20


def blocks_of(network: Network, rows: int, itemsize: int) -> Iterator[slice]:
    """Yield the rows of each block. The values of a layer for a block take at most 32 MiB, unless a block has one row.

    Args:
        network: The network.
        rows: The number of rows in total.
        itemsize: The bytes of an element of the weights.
    """
    step = max(1, min(EVALUATION_ROWS, _BLOCK_BYTES // (network.widest * itemsize)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def forward(network: Network, vector: Array, inputs: Array) -> Array:
    """Return the outputs of the last layer, bit-identical to those of the chapter's modules.

    Args:
        network: The network.
        vector: The flat vector of its weights, which can be a memory-mapped file.
        inputs: Numbers of any type, of shape (rows, features).
    """
    vector = np.asarray(vector)
    values = inputs * (inputs > 0) if network.relu_input else inputs
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in network.layers:
            W, b = layer.weights(vector)
            values = values.astype(W.dtype, copy=False) @ W.T
            values += b
            if layer.relu:
                values *= values > 0
    return values
