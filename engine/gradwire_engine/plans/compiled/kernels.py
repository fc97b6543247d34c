"""The three functions in which all the time goes, each compiled once for an element type: product, update, gather.

The loops call them by address, so that their code, by far the largest part, is compiled once and not in each of its
callers. Their arguments are all integers: addresses, counts, and panel strides in bytes.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import cfunc, njit, types
from numpy.typing import NDArray

from gradwire_engine.plans.compiled.code_cache import compiling
from gradwire_engine.plans.compiled.llvm_vectors import LINE_BYTES
from gradwire_engine.plans.compiled.tiles import (
    ADDED,
    AS_IS,
    FROM_BIAS,
    FROM_RESULT,
    FROM_ZERO,
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

# Where the table of kernels has the address of which.
PRODUCT, UPDATE, GATHER = range(3)

# k is taken in blocks of so many elements, and the left operand of a product in blocks of rows of at most so many
# bytes, which fit into the second cache beside the right one.
K_BLOCK = 1024
_BLOCK_BYTES = 256 * 1024
# Rows that are gathered together, panel by panel.
_GATHER_ROWS = 8
# Rows of a tile of an update: they must divide a line.
_MOST_UPDATE_ROWS = 8


@njit
def _product(
    left, left_panel, depth, right, right_panel, panels, result, result_panel, bias, end, other, rows, most_rows,
    shapes, zero,
):  # fmt: skip
    size = item_size(zero)
    lanes = LINE_BYTES // size
    block_rows = max(most_rows, _BLOCK_BYTES // (min(depth, K_BLOCK) * size) // most_rows * most_rows)
    for k in range(0, depth, K_BLOCK):
        k_count = min(K_BLOCK, depth - k)
        begin = FROM_RESULT if k > 0 else FROM_BIAS if bias else FROM_ZERO
        ending = end if k + k_count == depth else AS_IS
        for block in range(0, rows, block_rows):
            count = min(block_rows, rows - block)
            tiles = (count + most_rows - 1) // most_rows
            tile_rows = (count + tiles - 1) // tiles
            panel = 0
            while panel < panels:
                together = shapes[tile_rows]
                while together > panels - panel:
                    together //= 2
                for row in range(block, block + count, tile_rows):
                    at = row * LINE_BYTES
                    row_tile(
                        min(tile_rows, block + count - row), together,
                        left + at + k // lanes * left_panel, left_panel - LINE_BYTES + size, k_count,
                        right + panel * right_panel + k * LINE_BYTES, right_panel,
                        result + at + panel * result_panel, result_panel,
                        begin, bias + panel * LINE_BYTES, ending, other + at + panel * result_panel, zero,
                    )  # fmt: skip
                panel += together


@njit
def _update(left, left_rows, right, right_panel, panels, result, result_panel, depth, update_rows, shapes, zero):
    panel = 0
    while panel < panels:
        together = shapes[update_rows]
        while together > panels - panel:
            together //= 2
        for row in range(0, left_rows, update_rows):
            column_tile(
                min(update_rows, left_rows - row), together,
                left + row * item_size(zero), 0, depth,
                right + panel * right_panel, right_panel,
                result + panel * result_panel + row * LINE_BYTES, result_panel,
                FROM_ZERO, 0, ADDED, 0, zero,
            )  # fmt: skip
        panel += together


@njit
def _gather(source, code, source_size, features, order, rows, relu, target, target_panel, zero):
    size = item_size(zero)
    lanes = LINE_BYTES // size
    for block in range(0, rows, _GATHER_ROWS):
        end = min(block + _GATHER_ROWS, rows)
        for panel in range((features + lanes - 1) // lanes):
            count = min(lanes, features - panel * lanes)
            for row in range(block, end):
                index = load_element(order + 8 * row, np.int64(0))
                start = source + (index * features + panel * lanes) * source_size
                to = target + panel * target_panel + row * LINE_BYTES
                if count == lanes:
                    convert_line(start, code, to, zero)
                else:
                    for lane in range(count):
                        convert_element(start + lane * source_size, code, to + lane * size, zero)
                if relu:
                    for lane in range(count):
                        store_element(to + lane * size, max(load_element(to + lane * size, zero), zero), zero)


@cache
def kernels(dtype: np.dtype[Any], registers: int) -> NDArray[np.int64]:
    """Return the addresses of the kernels for elements of a dtype and so many registers of a line each.

    product: result[rows, panels] = end(bias + left[rows, depth] @ right[depth, panels]); `bias` 0 stands for no bias.
    update: result[left_rows, panels] += left[depth, left_rows]^T @ right[depth, panels]; left_rows lie in one panel.
    gather: copies the rows `order` of a row-major matrix of the dtype with that code to the first rows of panels.
    """
    zero = dtype.type(0)
    shapes = np.array(panels_by_rows(registers), np.int64)
    most_rows = len(shapes) - 1
    update_rows = _MOST_UPDATE_ROWS if most_rows >= _MOST_UPDATE_ROWS else _MOST_UPDATE_ROWS // 2

    def compiled(arguments: int) -> Any:
        def compile_function(function: Any) -> Any:
            with compiling():
                return cfunc(types.void(*[types.int64] * arguments), nopython=True, cache=True)(function)

        return compile_function

    @compiled(12)
    def product(left, left_panel, depth, right, right_panel, panels, result, result_panel, bias, end, other, rows):
        _product(
            left, left_panel, depth, right, right_panel, panels, result, result_panel, bias, end, other, rows,
            most_rows, shapes, zero,
        )  # fmt: skip

    @compiled(8)
    def update(left, left_rows, right, right_panel, panels, result, result_panel, depth):
        _update(left, left_rows, right, right_panel, panels, result, result_panel, depth, update_rows, shapes, zero)

    @compiled(9)
    def gather(source, code, source_size, features, order, rows, relu, target, target_panel):
        _gather(source, code, source_size, features, order, rows, relu, target, target_panel, zero)

    # The functions must outlive the addresses.
    _kept.extend((product, update, gather))
    return np.array([function.address for function in (product, update, gather)], np.int64)


_kept: list[Any] = []
