"""The innermost loops, as LLVM vector code: a tile of a matrix product held in registers, and the rows of a softmax.

Matrices lie in panels (see layout.py): a line is the 64 bytes of one row in one panel. A product's tile is some rows of
some panels, one line-wide accumulator for each. Every element is one chain of fused multiply-adds in the order of k,
whatever the tile, so neither the tile's size nor the number of threads changes a bit of the result.

Addresses are plain integers here; the callers in loops.py know the shapes. Nothing checks bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64

# How a tile begins: at 0, at a line of biases for each panel, or at what stands in the result.
FROM_ZERO, FROM_BIAS, FROM_RESULT = 0, 1, 2
# How it ends: as it is, as max(x, 0), as x where the other matrix is positive and 0 elsewhere, or added to the result.
# An update is added as a whole: added product by product, a small step would be lost in the rounding of large weights.
AS_IS, RELU, WHERE_POSITIVE, ADDED = 0, 1, 2, 3

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_ZERO = ir.Constant(_I64, 0)
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


class _Vectors:
    """Vector code on lines of one element type."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type) -> None:
        self.builder = builder
        self.element = element
        self.is_float = isinstance(element, ir.FloatType)
        self.size = 4 if self.is_float else 8
        self.lanes = LINE_BYTES // self.size
        self.vector = ir.VectorType(element, self.lanes)

    def _call(self, name: str, *arguments: ir.Value) -> ir.Value:
        function_type = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
        suffix = f"v{self.lanes}f{8 * self.size}"
        function = cgutils.get_or_insert_function(self.builder.module, function_type, f"llvm.{name}.{suffix}")
        return self.builder.call(function, arguments)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self._call("fma", a, b, c)

    def round(self, a: ir.Value) -> ir.Value:
        return self._call("rint", a)

    def constant(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector, [value] * self.lanes)

    def splat(self, scalar: ir.Value) -> ir.Value:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        )

    def pointer(self, address: ir.Value, vector: bool) -> ir.Value:
        return self.builder.inttoptr(address, (self.vector if vector else self.element).as_pointer())

    def load(self, address: ir.Value) -> ir.Value:
        return self.builder.load(self.pointer(address, vector=True), align=LINE_BYTES)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.store(value, self.pointer(address, vector=True), align=LINE_BYTES)

    def load_scalar(self, address: ir.Value) -> ir.Value:
        return self.builder.load(self.pointer(address, vector=False), align=self.size)

    def shift(self, address: ir.Value, offset: int) -> ir.Value:
        return self.builder.add(address, ir.Constant(_I64, offset)) if offset else address

    def shuffle(self, a: ir.Value, b: ir.Value, picks: list[int]) -> ir.Value:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(picks)), picks))

    def valid_lanes(self, count: ir.Value) -> ir.Value:
        """A vector of bits: the lanes before `count`."""
        vector = ir.VectorType(_I64, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(undefined, count, ir.Constant(_I32, 0))
        counts = self.shuffle(one, undefined, [0] * self.lanes)
        return self.builder.icmp_signed("<", ir.Constant(vector, list(range(self.lanes))), counts)

    def reduce(self, value: ir.Value, combine: Any) -> ir.Value:
        """Combine the lanes pairwise, always in the same tree, and return the scalar."""
        half = self.lanes // 2
        while half:
            picks = [(lane + half) % self.lanes for lane in range(self.lanes)]
            value = combine(value, self.shuffle(value, value, picks))
            half //= 2
        return self.builder.extract_element(value, ir.Constant(_I32, 0))


class _Tile:
    """The code of one shape of tile: how it begins, its sums, how it ends.

    along_rows: the left operand's k runs along its rows, from panel to panel; else k runs down the rows of one panel.
    """

    def __init__(self, function: ir.Function, element: ir.Type, rows: int, panels: int, along_rows: bool) -> None:
        self.function = function
        self.rows, self.panels, self.along_rows = rows, panels, along_rows
        self.places = [(row, panel) for row in range(rows) for panel in range(panels)]
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.v = _Vectors(self.builder, element)

    def write(self) -> None:
        """Write the whole function."""
        left, left_jump, depth, right, right_panel, result, result_panel, begin, bias, end, other = self.function.args
        starts = self._begin(begin, bias, result, result_panel)
        sums = self._sum(starts, left, left_jump, depth, right, right_panel)
        self._end(sums, end, result, result_panel, other)

    def _line(self, start: ir.Value, panel_bytes: ir.Value, row: int, panel: int) -> ir.Value:
        panel_start = self.builder.add(start, self.builder.mul(panel_bytes, ir.Constant(_I64, panel)))
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
        switch.add_case(ir.Constant(_I64, FROM_BIAS), from_bias)
        switch.add_case(ir.Constant(_I64, FROM_RESULT), from_result)
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
        k, left_at, right_at = (builder.phi(_I64) for _ in range(3))
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
            at_panel_end = builder.icmp_signed("==", builder.and_(k_next, ir.Constant(_I64, v.lanes - 1)), _ZERO)
            left_next = builder.add(left_at, builder.select(at_panel_end, left_jump, ir.Constant(_I64, v.size)))
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
            switch.add_case(ir.Constant(_I64, kind), blocks[kind])


def _tile_function(module: ir.Module, element: ir.Type, rows: int, panels: int, along_rows: bool) -> ir.Function:
    """Return the function for one shape of tile, made once in a module."""
    name = f"gradwire_tile_{'rows' if along_rows else 'columns'}_{element}_{rows}x{panels}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64] * 11), name)
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
            chosen = builder.add(builder.mul(rows_value, ir.Constant(_I64, 16)), panels_value)
            switch = builder.switch(chosen, leave)
            for shape_rows, most_panels in enumerate(panels_by_rows(_MOST_REGISTERS)):
                for shape_panels in _PANELS:
                    if shape_rows == 0 or shape_panels > most_panels:
                        continue
                    function = _tile_function(builder.module, element, shape_rows, shape_panels, along_rows)
                    block = builder.append_basic_block("tile")
                    switch.add_case(ir.Constant(_I64, shape_rows * 16 + shape_panels), block)
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


@intrinsic
def transpose_block(typing_context, source, target, zero):
    """Transpose a square of lines: lanes x lanes elements at `source` to `target`."""

    def generate(context, builder, signature, arguments):
        v = _Vectors(builder, context.get_value_type(signature.args[2]))
        rows = [v.load(v.shift(arguments[0], row * LINE_BYTES)) for row in range(v.lanes)]
        # Swap blocks off the diagonal, of half the size in each round.
        half = v.lanes // 2
        while half:
            for row in range(v.lanes):
                if row & half:
                    continue
                low, high = rows[row], rows[row + half]
                lanes = range(v.lanes)
                rows[row] = v.shuffle(low, high, [lane if not lane & half else v.lanes + lane - half for lane in lanes])
                rows[row + half] = v.shuffle(
                    low, high, [lane + half if not lane & half else v.lanes + lane for lane in lanes]
                )
            half //= 2
        for row, value in enumerate(rows):
            v.store(value, v.shift(arguments[1], row * LINE_BYTES))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, zero), generate


@intrinsic
def line_max(typing_context, address, count, zero):
    """Return the largest of the first `count` elements of a line; a NaN may be passed over."""

    def generate(context, builder, signature, arguments):
        v = _Vectors(builder, context.get_value_type(signature.args[2]))
        valid = v.valid_lanes(arguments[1])
        value = builder.select(valid, v.load(arguments[0]), v.constant(float("-inf")))
        return v.reduce(value, lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return zero(types.int64, types.int64, zero), generate


@intrinsic
def first_equal(typing_context, address, count, value):
    """Return the place of the first of the first `count` elements of a line that is equal to `value`, or else lanes."""

    def generate(context, builder, signature, arguments):
        v = _Vectors(builder, context.get_value_type(signature.args[2]))
        equal = builder.fcmp_ordered("==", v.load(arguments[0]), v.splat(arguments[2]))
        bits = builder.bitcast(builder.and_(equal, v.valid_lanes(arguments[1])), ir.IntType(v.lanes))
        # One bit more, so that there is always one to find.
        found = builder.or_(builder.zext(bits, _I64), ir.Constant(_I64, 1 << v.lanes))
        return builder.cttz(found, ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64, types.int64, value), generate


@intrinsic
def scale_line(typing_context, address, factor):
    """Multiply the elements of a line."""

    def generate(context, builder, signature, arguments):
        v = _Vectors(builder, context.get_value_type(signature.args[1]))
        v.store(builder.fmul(v.load(arguments[0]), v.splat(arguments[1])), arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64, factor), generate


# 1/k! for exp(r) = sum of r^k / k! with |r| <= ln(2)/2; the rest of the series is below half a unit in the last place.
_EXP_TERMS = {4: 8, 8: 14}
# ln(2) in two parts, so that n * the first is exact.
_LN2 = {4: (0.693359375, -2.12194440054690583e-4), 8: (0.693147180369123816490, 1.90821492927058770002e-10)}
# Below these, exp(x) is not a normal number.
_EXP_LEAST = {4: -87.0, 8: -708.0}


@intrinsic
def exp_line(typing_context, source, count, shift, target):
    """target = exp(source - shift) in the first `count` elements of a line, 0 in the others; returns their sum.

    source - shift must not be positive; what is too small for a normal number comes out as the smallest one.
    """

    def generate(context, builder, signature, arguments):
        source, count, shift, target = arguments
        v = _Vectors(builder, context.get_value_type(signature.args[2]))
        x = builder.fsub(v.load(source), v.splat(shift))
        least = v.constant(_EXP_LEAST[v.size])
        x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
        # exp(x) = 2^n exp(r), n = round(x / ln 2).
        n = v.round(builder.fmul(x, v.constant(1.4426950408889634)))
        minus_n = builder.fneg(n)
        high, low = _LN2[v.size]
        r = v.fma(minus_n, v.constant(low), v.fma(minus_n, v.constant(high), x))
        term = 1.0
        coefficients = [1.0]
        for k in range(1, _EXP_TERMS[v.size]):
            term /= k
            coefficients.append(term)
        value = v.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = v.fma(value, r, v.constant(coefficient))
        integers = ir.VectorType(ir.IntType(8 * v.size), v.lanes)
        bits, offset = (23, 127) if v.is_float else (52, 1023)
        # Saturating, because n is NaN where x is; value is then NaN already.
        convert = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(integers, [v.vector]),
            f"llvm.fptosi.sat.v{v.lanes}i{8 * v.size}.v{v.lanes}f{8 * v.size}",
        )
        exponent = builder.add(builder.call(convert, [n]), ir.Constant(integers, [offset] * v.lanes))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(integers, [bits] * v.lanes)), v.vector)
        value = builder.select(v.valid_lanes(count), builder.fmul(value, scale), v.constant(0.0))
        v.store(value, target)
        return v.reduce(value, builder.fadd)

    return shift(types.int64, types.int64, shift, types.int64), generate


@intrinsic
def load_element(typing_context, address, zero):
    """Return the element at an address."""

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(signature.args[1])
        return builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))

    return zero(types.int64, zero), generate


@intrinsic
def store_element(typing_context, address, value, zero):
    """Store a number as an element at an address."""

    def generate(context, builder, signature, arguments):
        v = _Vectors(builder, context.get_value_type(signature.args[2]))
        builder.store(arguments[1], v.pointer(arguments[0], vector=False), align=v.size)
        return context.get_dummy_value()

    return types.void(types.int64, zero, zero), generate


@intrinsic
def item_size(typing_context, zero):
    """Return the bytes of an element."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(_I64, _Vectors(builder, context.get_value_type(signature.args[0])).size)

    return types.int64(zero), generate


@intrinsic
def element(typing_context, value, zero):
    """Return a number as an element, of the type of `zero`."""

    def generate(context, builder, signature, arguments):
        return arguments[0]

    return zero(zero, zero), generate


# The dtypes of data that `convert` reads, in the order of their codes.
SOURCES = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


def _convert(v: _Vectors, source: ir.Value, dtype: str, lanes: int) -> ir.Value:
    """Load `lanes` values of a dtype, unaligned, and convert them to elements; a vector, or a scalar for one."""
    width = int(dtype.lstrip("uintfloa"))
    is_float = dtype.startswith("float")
    kind = ({32: ir.FloatType(), 64: ir.DoubleType()} if is_float else {width: ir.IntType(width)})[width]
    wanted: ir.Type = v.element
    if lanes > 1:
        kind, wanted = ir.VectorType(kind, lanes), v.vector
    values = v.builder.load(v.builder.inttoptr(source, kind.as_pointer()), align=width // 8)
    if not is_float:
        return (v.builder.uitofp if dtype.startswith("u") else v.builder.sitofp)(values, wanted)
    if width == 8 * v.size:
        return values
    return (v.builder.fpext if width < 8 * v.size else v.builder.fptrunc)(values, wanted)


def _convert_intrinsic(whole_line: bool) -> Any:
    def convert(typing_context, source, code, target, zero):
        def generate(context, builder, signature, arguments):
            v = _Vectors(builder, context.get_value_type(signature.args[3]))
            source, code, target, _ = arguments
            leave = builder.append_basic_block("converted")
            switch = builder.switch(code, leave)
            for number, dtype in enumerate(SOURCES):
                block = builder.append_basic_block(dtype)
                switch.add_case(ir.Constant(_I64, number), block)
                with builder.goto_block(block):
                    values = _convert(v, source, dtype, v.lanes if whole_line else 1)
                    align = LINE_BYTES if whole_line else v.size
                    builder.store(values, v.pointer(target, vector=whole_line), align=align)
                    builder.branch(leave)
            builder.position_at_end(leave)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, zero), generate

    return intrinsic(convert)


# target = as many values of the dtype with that code as a line has elements, or one.
convert_line = _convert_intrinsic(whole_line=True)
convert_element = _convert_intrinsic(whole_line=False)


@intrinsic
def call(typing_context, function, arguments):
    """Call the function at an address, whose arguments are all integers of 64 bits, and which returns nothing."""

    def generate(context, builder, signature, values):
        integers = [
            context.cast(builder, builder.extract_value(values[1], index), kind, types.int64)
            for index, kind in enumerate(signature.args[1])
        ]
        function_type = ir.FunctionType(ir.VoidType(), [_I64] * len(integers))
        builder.call(builder.inttoptr(values[0], function_type.as_pointer()), integers)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate
