"""The innermost loop, as LLVM vector code: a tile of a matrix product held in registers.

Matrices lie in panels (see layout.py): a line is the 64 bytes of one row in one panel. A product's tile is some rows of
some panels, one line-wide accumulator for each. Every element is one chain of fused multiply-adds in the order of k,
whatever the tile, so neither the tile's size nor the number of threads changes a bit of the result.

Addresses are plain integers here; the callers in loops.py know the shapes. Nothing checks bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gradwire_engine.plans.compiled.llvm_vectors import I64, LINE_BYTES, Vectors

# How a tile begins: at 0, at a line of biases for each panel, or at what stands in the result.
FROM_ZERO, FROM_BIAS, FROM_RESULT = 0, 1, 2
# How it ends: as it is, as max(x, 0), as x where the other matrix is positive and 0 elsewhere, or added to the result.
# An update is added as a whole: added product by product, a small step would be lost in the rounding of large weights.
AS_IS, RELU, WHERE_POSITIVE, ADDED = 0, 1, 2, 3

_ZERO = ir.Constant(I64, 0)
_Starts = dict[ir.Block, list[ir.Value]]
# The shapes of tiles that are built: those that fit into 32 registers of a line each, which is what AVX-512 has.
_MOST_REGISTERS = 32
_MOST_ROWS = 12
_PANELS = (1, 2, 4, 8)


def panels_by_rows(registers: int) -> list[int]:
    """Return, for tiles of 0, 1, 2, ... rows, how many panels they can span with so many registers of a line each.

    A tile keeps its sums, a line of each panel and one factor in registers.
    """
    fitting = [
        [panels for panels in _PANELS if panels * (rows + 1) < min(registers, _MOST_REGISTERS)]
        for rows in range(_MOST_ROWS + 1)
    ]
    return [max(panels) for panels in fitting if panels]


class _Tile:
    """The code of one shape of tile: how it begins, its sums, how it ends.

    along_rows: the left operand's k runs along its rows, from panel to panel; else k runs down the rows of one panel.
    """

    def __init__(self, function: ir.Function, element: ir.Type, rows: int, panels: int, along_rows: bool) -> None:
        self.function = function
        self.rows, self.panels, self.along_rows = rows, panels, along_rows
        self.places = [(row, panel) for row in range(rows) for panel in range(panels)]
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.v = Vectors(self.builder, element)

    def write(self) -> None:
        """Write the whole function."""
        left, left_jump, depth, right, right_panel, result, result_panel, begin, bias, end, other = self.function.args
        starts = self._begin(begin, bias, result, result_panel)
        sums = self._sum(starts, left, left_jump, depth, right, right_panel)
        self._end(sums, end, result, result_panel, other)

    def _line(self, start: ir.Value, panel_bytes: ir.Value, row: int, panel: int) -> ir.Value:
        panel_start = self.builder.add(start, self.builder.mul(panel_bytes, ir.Constant(I64, panel)))
        return self.v.shift(panel_start, row * LINE_BYTES)

    def _block(self, name: str) -> ir.Block:
        block = self.function.append_basic_block(name)
        self.builder.position_at_end(block)
        return block

    def _begin(self, begin: ir.Value, bias: ir.Value, result: ir.Value, result_panel: ir.Value) -> _Starts:
        """The accumulators' first values, by the block that they come from."""
        v = self.v
        entry = self.builder.block
        starts: _Starts = {self._block("zero"): [v.constant(0.0)] * len(self.places)}
        from_bias = self._block("bias")
        biases = [v.load(v.shift(bias, panel * LINE_BYTES)) for panel in range(self.panels)]
        starts[from_bias] = [biases[panel] for _, panel in self.places]
        from_result = self._block("result")
        starts[from_result] = [v.load(self._line(result, result_panel, *place)) for place in self.places]
        self.builder.position_at_end(entry)
        switch = self.builder.switch(begin, next(iter(starts)))
        switch.add_case(ir.Constant(I64, FROM_BIAS), from_bias)
        switch.add_case(ir.Constant(I64, FROM_RESULT), from_result)
        return starts

    def _sum(
        self,
        starts: _Starts,
        left: ir.Value,
        left_jump: ir.Value,
        depth: ir.Value,
        right: ir.Value,
        right_panel: ir.Value,
    ) -> list[ir.Value]:
        """sums += left[row, k] * right[k, :], for all k; returns them, with the builder behind the loop."""
        v, builder = self.v, self.builder
        loop = self._block("loop")
        k, left_at, right_at = (builder.phi(I64) for _ in range(3))
        sums = [builder.phi(v.vector) for _ in self.places]
        for block, values in starts.items():
            with builder.goto_block(block):
                builder.branch(loop)
            for phi, value in zip([k, left_at, right_at, *sums], [_ZERO, left, right, *values], strict=True):
                phi.add_incoming(value, block)
        lines = [v.load(self._line(right_at, right_panel, 0, panel)) for panel in range(self.panels)]
        row_bytes = LINE_BYTES if self.along_rows else v.size
        factors = [v.splat(v.load_scalar(v.shift(left_at, row * row_bytes))) for row in range(self.rows)]
        added = [v.fma(factors[row], lines[panel], old) for (row, panel), old in zip(self.places, sums, strict=True)]
        k_next = v.shift(k, 1)
        if self.along_rows:
            at_panel_end = builder.icmp_signed("==", builder.and_(k_next, ir.Constant(I64, v.lanes - 1)), _ZERO)
            left_next = builder.add(left_at, builder.select(at_panel_end, left_jump, ir.Constant(I64, v.size)))
        else:
            left_next = v.shift(left_at, LINE_BYTES)
        nexts = [k_next, left_next, v.shift(right_at, LINE_BYTES), *added]
        for phi, value in zip([k, left_at, right_at, *sums], nexts, strict=True):
            phi.add_incoming(value, loop)
        again = builder.icmp_signed("<", k_next, depth)
        done = self._block("done")
        with builder.goto_block(loop):
            builder.cbranch(again, loop, done)
        return added

    def _end(
        self, sums: list[ir.Value], end: ir.Value, result: ir.Value, result_panel: ir.Value, other: ir.Value
    ) -> None:
        """What becomes of the sums."""
        v, builder = self.v, self.builder
        done, zero = builder.block, v.constant(0.0)
        blocks = {kind: self._block(f"end{kind}") for kind in (AS_IS, RELU, WHERE_POSITIVE, ADDED)}
        for kind, block in blocks.items():
            builder.position_at_end(block)
            for place, value in zip(self.places, sums, strict=True):
                kept = value
                if kind == ADDED:
                    kept = builder.fadd(v.load(self._line(result, result_panel, *place)), value)
                elif kind != AS_IS:
                    gate = value if kind == RELU else v.load(self._line(other, result_panel, *place))
                    # Not "where it is above 0": a NaN stays a NaN, as in x * (x > 0).
                    kept = builder.select(builder.fcmp_ordered("<=", gate, zero), zero, value)
                v.store(kept, self._line(result, result_panel, *place))
            builder.ret_void()
        builder.position_at_end(done)
        switch = builder.switch(end, blocks[AS_IS])
        for kind in (RELU, WHERE_POSITIVE, ADDED):
            switch.add_case(ir.Constant(I64, kind), blocks[kind])


def _tile_function(module: ir.Module, element: ir.Type, rows: int, panels: int, along_rows: bool) -> ir.Function:
    """Return the function for one shape of tile, made once in a module."""
    name = f"gradwire_tile_{'rows' if along_rows else 'columns'}_{element}_{rows}x{panels}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 11), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    _Tile(function, element, rows, panels, along_rows).write()
    return function


def _tile_intrinsic(along_rows: bool) -> Any:
    def tile(
        typing_context,
        rows,
        panels,
        left,
        left_jump,
        depth,
        right,
        right_panel,
        result,
        result_panel,
        begin,
        bias,
        end,
        other,
        zero,
    ):
        signature = types.void(*[types.int64] * 13, zero)

        def generate(context, builder, signature, arguments):
            element = context.get_value_type(signature.args[13])
            leave = builder.append_basic_block("tile.end")
            rows_value, panels_value, *rest = arguments[:13]
            chosen = builder.add(builder.mul(rows_value, ir.Constant(I64, 16)), panels_value)
            switch = builder.switch(chosen, leave)
            for shape_rows, most_panels in enumerate(panels_by_rows(_MOST_REGISTERS)):
                for shape_panels in _PANELS:
                    if shape_rows == 0 or shape_panels > most_panels:
                        continue
                    function = _tile_function(builder.module, element, shape_rows, shape_panels, along_rows)
                    block = builder.append_basic_block("tile")
                    switch.add_case(ir.Constant(I64, shape_rows * 16 + shape_panels), block)
                    with builder.goto_block(block):
                        builder.call(function, rest)
                        builder.branch(leave)
            builder.position_at_end(leave)
            return context.get_dummy_value()

        return signature, generate

    return intrinsic(tile)


# result[rows, panels] (begins, then) += left[rows, k] * right[k, panels] over k in 0..depth, then ends.
# left_jump: bytes from the last element of a line of `left` to the first of the same row in its next panel.
# right_panel, result_panel: bytes from panel to panel. `other` lies as the result does.
row_tile = _tile_intrinsic(along_rows=True)
# The same with left[k, rows], that is, with the left operand transposed: k runs down the rows of one panel.
column_tile = _tile_intrinsic(along_rows=False)
