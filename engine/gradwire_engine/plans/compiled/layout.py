"""How the compiled plan stores matrices: in panels, with tables that hold the address of each.

A panel holds the columns of a matrix that fit into 64 bytes (16 of float32, 8 of float64), row after row. The last
panel is padded with zeros. One row of one panel, a line, is a cache line and a vector register, and a product reads
both its operands sequentially, whatever their shapes.

A weight matrix has a row for each input and a column for each output. A batch has a row for each example. The number of
rows of a panel is odd, so that the panels of a matrix do not compete for the same cache sets.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.network import DenseLayer, Network
from gradwire_engine.plans.compiled.llvm_vectors import LINE_BYTES

# The columns of the table of layers: widths, the address of the weights, the bytes from panel to panel, the address of
# the biases, and whether a ReLU follows.
INPUTS, OUTPUTS, WEIGHTS, WEIGHTS_PANEL, BIAS, RELU_AFTER = range(6)
# The columns of the table of values: the address of the values of a layer, and of the gradient of the loss with respect
# to them.
VALUES, GRADIENTS = range(2)


def lines(dtype: np.dtype[Any], panels: int, rows: int) -> Array:
    """Return zeros of shape (panels, rows, lanes), aligned to a line."""
    shape = (panels, rows, LINE_BYTES // dtype.itemsize)
    memory = np.zeros(panels * rows * LINE_BYTES + LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % LINE_BYTES
    return memory[start : start + panels * rows * LINE_BYTES].view(dtype).reshape(shape)


def panel_count(dtype: np.dtype[Any], columns: int) -> int:
    """Return the number of panels of a matrix with `columns` columns."""
    return -(-columns * dtype.itemsize // LINE_BYTES)


def _panel_rows(rows: int) -> int:
    return rows | 1


class LayerWeights:
    """The weights and biases of one layer in panels."""

    def __init__(self, layer: DenseLayer, vector: Array) -> None:
        """Copy them from the flat vector of a network."""
        dtype = vector.dtype
        panels = panel_count(dtype, layer.out_features)
        # Only whole blocks of lanes x lanes elements are transposed, so the last one needs all its rows.
        rows = panel_count(dtype, layer.in_features) * LINE_BYTES // dtype.itemsize
        self._layer = layer
        self._weights = lines(dtype, panels, _panel_rows(rows))
        self._biases = lines(dtype, panels, 1)
        W, b = layer.weights(vector)
        for panel, columns in enumerate(self._columns()):
            self._weights[panel, : layer.in_features, : columns.stop - columns.start] = W[columns].T
        self._biases.reshape(-1)[: layer.out_features] = b

    def write(self, vector: Array) -> None:
        """Copy them into the flat vector of a network."""
        W, b = self._layer.weights(vector)
        for panel, columns in enumerate(self._columns()):
            W[columns] = self._weights[panel, : self._layer.in_features, : columns.stop - columns.start].T
        b[:] = self._biases.reshape(-1)[: self._layer.out_features]

    def row(self) -> list[int]:
        """Return the row of this layer in the table of layers."""
        at, panel = self._weights.ctypes.data, self._weights.strides[0]
        layer = self._layer
        return [layer.in_features, layer.out_features, at, panel, self._biases.ctypes.data, int(layer.relu)]

    def _columns(self) -> list[slice]:
        lanes, outputs = self._weights.shape[2], self._layer.out_features
        return [slice(start, min(start + lanes, outputs)) for start in range(0, outputs, lanes)]


class Scratch(NamedTuple):
    """A workspace as the loops see it.

    Attributes:
        table: The table of values.
        panel_bytes: The bytes from panel to panel.
        targets_at: The address of the targets as a matrix.
        ones_at: The address of a line of ones for each row.
        losses: The loss of each row.
    """

    table: NDArray[np.int64]
    panel_bytes: int
    targets_at: int
    ones_at: int
    losses: NDArray[np.float64]


class Workspace:
    """Memory for the values and gradients of all layers, and for the targets, of up to `rows` rows."""

    def __init__(self, network: Network, dtype: np.dtype[Any], rows: int) -> None:
        height = _panel_rows(rows)
        outputs = [layer.out_features for layer in network.layers]
        self.rows = rows
        self._values = [lines(dtype, panel_count(dtype, width), height) for width in (network.in_features, *outputs)]
        self._gradients = [lines(dtype, panel_count(dtype, width), height) for width in outputs]
        self._targets = lines(dtype, panel_count(dtype, outputs[-1]), height)
        self._ones = lines(dtype, 1, height)
        self._ones[:] = 1
        # The inputs have no gradient.
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
    """Allocate memory for the transposed weights of two input panels of any layer."""
    lanes = LINE_BYTES // dtype.itemsize
    return lines(dtype, 2, panel_count(dtype, max(layer.out_features for layer in network.layers)) * lanes)
