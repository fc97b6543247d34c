"""The three kernels that account for nearly all of the training time: matrix product, weight update and gather.

Each kernel is compiled once for each element type. The loops call the kernels by address, because otherwise this code,
which is by far the largest part, would be compiled again for each caller. All arguments are integers: addresses,
counts, and distances between panels in bytes.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import cfunc, njit, types

from gradwire_engine.plans.compiled.code_cache import compiling
from gradwire_engine.plans.compiled.llvm_vectors import LINE_BYTES
from gradwire_engine.plans.compiled.tiles import (
    ADDED,
    AS_IS,
    FROM_BIAS,
    FROM_RESULT,
    FROM_ZERO,
    Tile,
    column_tile,
    panels_by_rows,
    row_tile,
)
from gradwire_engine.plans.compiled.vector_intrinsics import (
    convert_element,
    convert_line,
    item_size,
    load_element,
    store_element,
)

# Products and updates process the inner dimension in blocks of this many elements.
DEPTH_BLOCK = 1024
# Products process the rows of the left operand in blocks of at most this many bytes. A block fits into the L2 cache
# together with the right operand.
_BLOCK_BYTES = 256 * 1024
# The number of rows that are gathered together, panel by panel.
_GATHER_ROWS = 8
# The maximum number of rows in an update tile. The number of elements in a line must be a multiple of it.
_MAX_UPDATE_ROWS = 8


class Product(NamedTuple):
    """Computes result[rows, panels] = end(bias + left[rows, depth] @ right[depth, panels]).

    Matrices are passed as addresses. `left_panel`, `right_panel` and `result_panel` are the distances between panels,
    in bytes.

    Attributes:
        bias: The address of the biases, one line for each panel, or 0 if there are none.
        end: The code of the final operation; see tiles.py.
        other: The matrix that WHERE_POSITIVE reads. Its strides are the same as those of the result.
    """

    left: int
    left_panel: int
    depth: int
    right: int
    right_panel: int
    panels: int
    result: int
    result_panel: int
    bias: int
    end: int
    other: int
    rows: int


class Update(NamedTuple):
    """Computes result[left_rows, panels] += left[depth, left_rows]^T @ right[depth, panels].

    left_rows must lie within one panel of the left operand.
    """

    left: int
    left_rows: int
    right: int
    right_panel: int
    panels: int
    result: int
    result_panel: int
    depth: int


class Gather(NamedTuple):
    """Copies rows of a row-major matrix into panels, and converts them to the element type.

    Attributes:
        source: The address of the matrix.
        code: The dtype code of the matrix.
        source_size: The item size of the matrix, in bytes.
        features: The number of columns of the matrix.
        order: The address of the row indices (int64).
        rows: The number of rows to copy.
        relu: Whether to replace negative values with 0.
        target: The address of the first panel.
        target_panel: The distance between target panels, in bytes.
    """

    source: int
    code: int
    source_size: int
    features: int
    order: int
    rows: int
    relu: int
    target: int
    target_panel: int


class Kernels(NamedTuple):
    """The addresses of the kernels for one element type."""

    product: int
    update: int
    gather: int


@njit
def _product(p, shapes, zero):
    size = item_size(zero)
    lanes = LINE_BYTES // size
    max_rows = len(shapes) - 1
    block_rows = max(max_rows, _BLOCK_BYTES // (min(p.depth, DEPTH_BLOCK) * size) // max_rows * max_rows)
    for k in range(0, p.depth, DEPTH_BLOCK):
        k_count = min(DEPTH_BLOCK, p.depth - k)
        begin = FROM_RESULT if k > 0 else FROM_BIAS if p.bias else FROM_ZERO
        end = p.end if k + k_count == p.depth else AS_IS
        for block in range(0, p.rows, block_rows):
            count = min(block_rows, p.rows - block)
            tiles = (count + max_rows - 1) // max_rows
            tile_rows = (count + tiles - 1) // tiles
            panel = 0
            while panel < p.panels:
                together = shapes[tile_rows]
                while together > p.panels - panel:
                    together //= 2
                for row in range(block, block + count, tile_rows):
                    at = row * LINE_BYTES
                    tile = Tile(
                        left=p.left + at + k // lanes * p.left_panel,
                        left_jump=p.left_panel - LINE_BYTES + size,
                        depth=k_count,
                        right=p.right + panel * p.right_panel + k * LINE_BYTES,
                        right_panel=p.right_panel,
                        result=p.result + at + panel * p.result_panel,
                        result_panel=p.result_panel,
                        begin=begin,
                        bias=p.bias + panel * LINE_BYTES,
                        end=end,
                        other=p.other + at + panel * p.result_panel,
                    )
                    row_tile(min(tile_rows, block + count - row), together, tile, zero)
                panel += together


@njit
def _update(u, update_rows, shapes, zero):
    panel = 0
    while panel < u.panels:
        together = shapes[update_rows]
        while together > u.panels - panel:
            together //= 2
        for row in range(0, u.left_rows, update_rows):
            tile = Tile(
                left=u.left + row * item_size(zero),
                left_jump=0,
                depth=u.depth,
                right=u.right + panel * u.right_panel,
                right_panel=u.right_panel,
                result=u.result + panel * u.result_panel + row * LINE_BYTES,
                result_panel=u.result_panel,
                begin=FROM_ZERO,
                bias=0,
                end=ADDED,
                other=0,
            )
            column_tile(min(update_rows, u.left_rows - row), together, tile, zero)
        panel += together


@njit
def _gather(g, zero):
    size = item_size(zero)
    lanes = LINE_BYTES // size
    for block in range(0, g.rows, _GATHER_ROWS):
        end = min(block + _GATHER_ROWS, g.rows)
        for panel in range((g.features + lanes - 1) // lanes):
            count = min(lanes, g.features - panel * lanes)
            for row in range(block, end):
                index = load_element(g.order + 8 * row, np.int64(0))
                start = g.source + (index * g.features + panel * lanes) * g.source_size
                to = g.target + panel * g.target_panel + row * LINE_BYTES
                if count == lanes:
                    convert_line(start, g.code, to, zero)
                else:
                    for lane in range(count):
                        convert_element(start + lane * g.source_size, g.code, to + lane * size, zero)
                if g.relu:
                    for lane in range(count):
                        store_element(to + lane * size, max(load_element(to + lane * size, zero), zero), zero)


@cache
def kernels(dtype: np.dtype[Any], registers: int) -> Kernels:
    """Return the kernels for a dtype, on a processor whose vector registers can hold `registers` lines in total."""
    zero = dtype.type(0)
    shapes = np.array(panels_by_rows(registers), np.int64)
    update_rows = _MAX_UPDATE_ROWS if len(shapes) > _MAX_UPDATE_ROWS else _MAX_UPDATE_ROWS // 2

    def compiled(arguments: Any) -> Any:
        signature = types.void(types.NamedUniTuple(types.int64, len(arguments._fields), arguments))

        def compile_function(function: Any) -> Any:
            with compiling():
                return cfunc(signature, nopython=True, cache=True)(function)

        return compile_function

    @compiled(Product)
    def product(arguments):
        _product(arguments, shapes, zero)

    @compiled(Update)
    def update(arguments):
        _update(arguments, update_rows, shapes, zero)

    @compiled(Gather)
    def gather(arguments):
        _gather(arguments, zero)

    # Keep a reference to the functions, because their addresses must stay valid.
    _kept.extend((product, update, gather))
    return Kernels(product.address, update.address, gather.address)


_kept: list[Any] = []
