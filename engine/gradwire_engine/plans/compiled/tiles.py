"""The innermost loop, which computes a tile of a matrix product in registers. It is LLVM vector code.

Matrices are stored in panels, and one row of one panel is a 64-byte line; see layout.py. A tile covers several rows and
panels of the result, and has one accumulator line for each combination. Every element is computed by one chain of fused
multiply-adds, in the order of k. The results therefore do not depend on the tile size or on the number of threads.

Addresses are plain integers, and bounds are not checked: the callers in kernels.py know the shapes.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gradwire_engine.plans.compiled.llvm_vectors import I64, LINE_BYTES, Vectors, integers_of

# The initial values of the accumulators: 0, the biases, or the current result.
FROM_ZERO, FROM_BIAS, FROM_RESULT = 0, 1, 2
# The final operation on an accumulator x: store x, store max(x, 0), store x where the other matrix is positive and 0
# elsewhere, or add x to the result. An update is summed up first and then added to the weights. If the weights were the
# initial values, small contributions would be lost to rounding.
AS_IS, RELU, WHERE_POSITIVE, ADDED = 0, 1, 2, 3

_ZERO = ir.Constant(I64, 0)
_Starts = dict[ir.Block, list[ir.Value]]
# The limits for the tile shapes that are compiled. The shapes must fit into 32 registers of one line each (AVX-512).
_MAX_REGISTERS = 32
_MAX_ROWS = 12
_PANELS = (1, 2, 4, 8)


class Tile(NamedTuple):
    """The operands of a tile. Matrices are passed as addresses, and all distances are in bytes.

    Attributes:
        left: The left operand.
        left_jump: The distance from the last element of a line of the left operand to the first element of the same row
            in the next panel.
        depth: The number of products that are summed for each element.
        right: The right operand.
        right_panel: The distance between panels of the right operand.
        result: The result.
        result_panel: The distance between panels of the result.
        begin: The code of the initial values.
        bias: The biases for FROM_BIAS, one line for each panel.
        end: The code of the final operation.
        other: The matrix that WHERE_POSITIVE reads. Its strides are the same as those of the result.
    """

    left: Any
    left_jump: Any
    depth: Any
    right: Any
    right_panel: Any
    result: Any
    result_panel: Any
    begin: Any
    bias: Any
    end: Any
    other: Any


def panels_by_rows(registers: int) -> list[int]:
    """Return the maximum number of panels for tiles with 0, 1, 2, ... rows.

    The accumulators of a tile, one line of each panel and one factor must fit into the vector registers.

    Args:
        registers: The total size of the vector registers, in lines.
    """
    fitting = [
        [panels for panels in _PANELS if panels * (rows + 1) < min(registers, _MAX_REGISTERS)]
        for rows in range(_MAX_ROWS + 1)
    ]
    return [max(panels) for panels in fitting if panels]


class _TileWriter:
    """Generates the function for one tile shape.

    If `along_rows` is true, k runs along the rows of the left operand, from panel to panel. Otherwise, the left operand
    is transposed, and k runs down one of its panels.
    """

    def __init__(self, function: ir.Function, element: ir.Type, rows: int, panels: int, along_rows: bool) -> None:
        self.function = function
        self.rows, self.panels, self.along_rows = rows, panels, along_rows
        self.positions = [(row, panel) for row in range(rows) for panel in range(panels)]
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.v = Vectors(self.builder, element)

    def write(self) -> None:
        """Generate the whole function."""
        tile = Tile(*self.function.args)
        self._end(tile, self._sum(tile, self._begin(tile)))

    def _line(self, start: ir.Value, panel_bytes: ir.Value, row: int, panel: int) -> ir.Value:
        panel_start = self.builder.add(start, self.builder.mul(panel_bytes, ir.Constant(I64, panel)))
        return self.v.shift(panel_start, row * LINE_BYTES)

    def _block(self, name: str) -> ir.Block:
        block = self.function.append_basic_block(name)
        self.builder.position_at_end(block)
        return block

    def _begin(self, tile: Tile) -> _Starts:
        """Return the initial values of the accumulators, keyed by the block that computes them."""
        v = self.v
        entry = self.builder.block
        starts: _Starts = {self._block("zero"): [v.constant(0.0)] * len(self.positions)}
        from_bias = self._block("bias")
        biases = [v.load(v.shift(tile.bias, panel * LINE_BYTES)) for panel in range(self.panels)]
        starts[from_bias] = [biases[panel] for _, panel in self.positions]
        from_result = self._block("result")
        starts[from_result] = [
            v.load(self._line(tile.result, tile.result_panel, *position)) for position in self.positions
        ]
        self.builder.position_at_end(entry)
        switch = self.builder.switch(tile.begin, next(iter(starts)))
        switch.add_case(ir.Constant(I64, FROM_BIAS), from_bias)
        switch.add_case(ir.Constant(I64, FROM_RESULT), from_result)
        return starts

    def _sum(self, tile: Tile, starts: _Starts) -> list[ir.Value]:
        """Generate the loop sums += left[row, k] * right[k, :] over all k, and return the sums after the loop."""
        v, builder = self.v, self.builder
        loop = self._block("loop")
        k, left_at, right_at = (builder.phi(I64) for _ in range(3))
        sums = [builder.phi(v.vector) for _ in self.positions]
        for block, values in starts.items():
            with builder.goto_block(block):
                builder.branch(loop)
            initial = [_ZERO, tile.left, tile.right, *values]
            for phi, value in zip([k, left_at, right_at, *sums], initial, strict=True):
                phi.add_incoming(value, block)
        lines = [v.load(self._line(right_at, tile.right_panel, 0, panel)) for panel in range(self.panels)]
        row_bytes = LINE_BYTES if self.along_rows else v.size
        factors = [v.splat(v.load_scalar(v.shift(left_at, row * row_bytes))) for row in range(self.rows)]
        added = [v.fma(factors[row], lines[panel], old) for (row, panel), old in zip(self.positions, sums, strict=True)]
        k_next = v.shift(k, 1)
        if self.along_rows:
            at_panel_end = builder.icmp_signed("==", builder.and_(k_next, ir.Constant(I64, v.lanes - 1)), _ZERO)
            left_next = builder.add(left_at, builder.select(at_panel_end, tile.left_jump, ir.Constant(I64, v.size)))
        else:
            left_next = v.shift(left_at, LINE_BYTES)
        nexts = [k_next, left_next, v.shift(right_at, LINE_BYTES), *added]
        for phi, value in zip([k, left_at, right_at, *sums], nexts, strict=True):
            phi.add_incoming(value, loop)
        again = builder.icmp_signed("<", k_next, tile.depth)
        done = self._block("done")
        with builder.goto_block(loop):
            builder.cbranch(again, loop, done)
        return added

    def _end(self, tile: Tile, sums: list[ir.Value]) -> None:
        """Generate the code that stores the sums and returns."""
        v, builder = self.v, self.builder
        done, zero = builder.block, v.constant(0.0)
        blocks = {kind: self._block(f"end{kind}") for kind in (AS_IS, RELU, WHERE_POSITIVE, ADDED)}
        for kind, block in blocks.items():
            builder.position_at_end(block)
            for position, value in zip(self.positions, sums, strict=True):
                target = self._line(tile.result, tile.result_panel, *position)
                stored = value
                if kind == ADDED:
                    stored = builder.fadd(v.load(target), value)
                elif kind != AS_IS:
                    gate = value if kind == RELU else v.load(self._line(tile.other, tile.result_panel, *position))
                    # The comparison is <= and not >, so that a NaN remains a NaN, as in x * (x > 0).
                    stored = builder.select(builder.fcmp_ordered("<=", gate, zero), zero, value)
                v.store(stored, target)
            builder.ret_void()
        builder.position_at_end(done)
        switch = builder.switch(tile.end, blocks[AS_IS])
        for kind in (RELU, WHERE_POSITIVE, ADDED):
            switch.add_case(ir.Constant(I64, kind), blocks[kind])


def _tile_function(module: ir.Module, element: ir.Type, rows: int, panels: int, along_rows: bool) -> ir.Function:
    """Return the function for one tile shape. It is generated only once in each module."""
    name = f"gradwire_tile_{'rows' if along_rows else 'columns'}_{element}_{rows}x{panels}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(Tile._fields)), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    _TileWriter(function, element, rows, panels, along_rows).write()
    return function


def _tile_intrinsic(along_rows: bool) -> Any:
    def run_tile(typing_context, rows, panels, tile, zero):
        def generate(context, builder, signature, arguments):
            element = context.get_value_type(signature.args[3])
            leave = builder.append_basic_block("tile.end")
            operands = integers_of(context, builder, signature.args[2], arguments[2])
            shape = builder.add(builder.mul(arguments[0], ir.Constant(I64, 16)), arguments[1])
            switch = builder.switch(shape, leave)
            for shape_rows, max_panels in enumerate(panels_by_rows(_MAX_REGISTERS)):
                for shape_panels in _PANELS:
                    if shape_rows == 0 or shape_panels > max_panels:
                        continue
                    function = _tile_function(builder.module, element, shape_rows, shape_panels, along_rows)
                    block = builder.append_basic_block("tile")
                    switch.add_case(ir.Constant(I64, shape_rows * 16 + shape_panels), block)
                    with builder.goto_block(block):
                        builder.call(function, operands)
                        builder.branch(leave)
            builder.position_at_end(leave)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, tile, zero), generate

    return intrinsic(run_tile)


# Arguments: (rows, panels, tile, zero). Sets the initial values, adds left[rows, k] * right[k, panels] for each k from
# 0 to depth - 1, and applies the final operation.
row_tile = _tile_intrinsic(along_rows=True)
# Does the same with a transposed left operand, left[k, rows]. k runs down the rows of one panel.
column_tile = _tile_intrinsic(along_rows=False)
