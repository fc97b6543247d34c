"""The matrix layout of the compiled plan: matrices are stored in panels, and tables contain the panel addresses.

A panel contains the columns of a matrix that fit into 64 bytes (16 float32 or 8 float64 columns), row by row. The last
panel is padded with zeros. One row of one panel is called a line. A line fills a cache line and an AVX-512 register. In
a product, both operands are read sequentially, regardless of their shapes.

A weight matrix has a row for each input and a column for each output. A batch has a row for each example. The number of
rows in a panel is odd, so that the panels of a matrix do not compete for the same cache sets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.network import DenseLayer, Network
from gradwire_engine.plans.compiled.llvm_vectors import LINE_BYTES

# The columns of the layer table: the widths, the address of the weights, the distance between panels in bytes, the
# address of the biases, and whether a ReLU follows.
INPUTS, OUTPUTS, WEIGHTS, WEIGHTS_PANEL, BIAS, RELU_AFTER = range(6)
# The columns of the value table: the address of the values (inputs or outputs of a layer), and the address of the
# gradients of the loss with respect to these values.
VALUES, GRADIENTS = range(2)


def lines(dtype: np.dtype[Any], panels: int, rows: int) -> Array:
    """Return an array of zeros, of shape (panels, rows, lanes), that is aligned to a line."""
    shape = (panels, rows, LINE_BYTES // dtype.itemsize)
    memory = np.zeros(panels * rows * LINE_BYTES + LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    return memory[start : start + panels * rows * LINE_BYTES].view(dtype).reshape(shape)


def panel_count(dtype: np.dtype[Any], columns: int) -> int:
    """Return the number of panels in a matrix with `columns` columns."""
    return -(-columns * dtype.itemsize // LINE_BYTES)


def _panel_rows(rows: int) -> int:
    return rows | 1


class LayerWeights:
    """The weights and biases of one layer, stored in panels."""

    def __init__(self, layer: DenseLayer, vector: Array) -> None:
        """Copy the weights and biases from the network's flat vector."""
        dtype = vector.dtype
        panels = panel_count(dtype, layer.out_features)
        # Transposition works on whole blocks of lanes x lanes elements, so the rows of the last block must all exist.
        rows = panel_count(dtype, layer.in_features) * LINE_BYTES // dtype.itemsize
        self._layer = layer
        self._weights = lines(dtype, panels, _panel_rows(rows))
        self._biases = lines(dtype, panels, 1)
        W, b = layer.weights(vector)
        for panel, columns in enumerate(self._columns()):
            self._weights[panel, : layer.in_features, : columns.stop - columns.start] = W[columns].T
        self._biases.reshape(-1)[: layer.out_features] = b

    def write(self, vector: Array) -> None:
        """Copy the weights and biases into the network's flat vector."""
        W, b = self._layer.weights(vector)
        for panel, columns in enumerate(self._columns()):
            W[columns] = self._weights[panel, : self._layer.in_features, : columns.stop - columns.start].T
        b[:] = self._biases.reshape(-1)[: self._layer.out_features]

    def row(self) -> list[int]:
        """Return this layer's row of the layer table."""
        at, panel = self._weights.ctypes.data, self._weights.strides[0]
        layer = self._layer
        return [layer.in_features, layer.out_features, at, panel, self._biases.ctypes.data, int(layer.relu)]

    def _columns(self) -> list[slice]:
        lanes, outputs = self._weights.shape[2], self._layer.out_features
        return [slice(start, min(start + lanes, outputs)) for start in range(0, outputs, lanes)]


class Scratch(NamedTuple):
    """A workspace in the form that the loops use.

    Attributes:
        table: The value table.
        panel_bytes: The distance between panels, in bytes.
        targets_at: The address of the target matrix.
        ones_at: The address of a panel that is filled with ones.
        losses: The loss of each row.
    """

    table: NDArray[np.int64]
    panel_bytes: int
    targets_at: int
    ones_at: int
    losses: NDArray[np.float64]


class Workspace:
    """Memory for the targets, and for the values and gradients of all layers, for up to `rows` rows."""

    def __init__(self, network: Network, dtype: np.dtype[Any], rows: int) -> None:
        height = _panel_rows(rows)
        outputs = [layer.out_features for layer in network.layers]
        self.rows = rows
        self._values = [lines(dtype, panel_count(dtype, width), height) for width in (network.in_features, *outputs)]
        self._gradients = [lines(dtype, panel_count(dtype, width), height) for width in outputs]
        self._targets = lines(dtype, panel_count(dtype, outputs[-1]), height)
        self._ones = lines(dtype, 1, height)
        self._ones[:] = 1
        # No gradient is computed for the network inputs.
        gradients_at = [0, *(array.ctypes.data for array in self._gradients)]
        addresses = [[values.ctypes.data, at] for values, at in zip(self._values, gradients_at, strict=True)]
        self.scratch = Scratch(
            table=np.array(addresses, np.int64),
            panel_bytes=height * LINE_BYTES,
            targets_at=self._targets.ctypes.data,
            ones_at=self._ones.ctypes.data,
            losses=np.zeros(rows),
        )

    def outputs(self, rows: int, columns: int) -> Array:
        """Return a copy of the outputs of the last layer, of shape (rows, columns)."""
        return self._values[-1][:, :rows].transpose(1, 0, 2).reshape(rows, -1)[:, :columns].copy()


def transpose_buffer(network: Network, dtype: np.dtype[Any]) -> Array:
    """Allocate a buffer that is large enough for the transposed weights of two input panels of the widest layer."""
    lanes = LINE_BYTES // dtype.itemsize
    return lines(dtype, 2, panel_count(dtype, max(layer.out_features for layer in network.layers)) * lanes)
