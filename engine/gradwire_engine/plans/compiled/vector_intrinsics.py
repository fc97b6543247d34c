"""Numba intrinsics that process lines and elements with LLVM vector code, and that call kernels by address.

Addresses are plain integers, as in tiles.py, and bounds are not checked. `zero` is a zero of the element type.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gradwire_engine.plans.codes import SOURCE_TYPES
from gradwire_engine.plans.compiled.llvm_vectors import I64, LINE_BYTES, Vectors, integers_of


@intrinsic
def transpose_block(typing_context, source, target, zero):
    """Transpose a block of lanes x lanes elements from `source` to `target`."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        rows = [v.load(v.shift(arguments[0], row * LINE_BYTES)) for row in range(v.lanes)]
        # Swap the off-diagonal blocks. Each round halves their size.
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
    """Return the largest of the first `count` elements of a line. NaNs may be ignored."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        valid = v.valid_lanes(arguments[1])
        value = builder.select(valid, v.load(arguments[0]), v.constant(float("-inf")))
        return v.reduce(value, lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return zero(types.int64, types.int64, zero), generate


@intrinsic
def first_equal(typing_context, address, count, value):
    """Return the index of the first element that equals `value`, or the number of lanes if there is none.

    Only the first `count` elements of the line are compared.
    """

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        equal = builder.fcmp_ordered("==", v.load(arguments[0]), v.splat(arguments[2]))
        bits = builder.bitcast(builder.and_(equal, v.valid_lanes(arguments[1])), ir.IntType(v.lanes))
        # The extra bit ensures that cttz always finds a set bit.
        found = builder.or_(builder.zext(bits, I64), ir.Constant(I64, 1 << v.lanes))
        return builder.cttz(found, ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64, types.int64, value), generate


@intrinsic
def scale_line(typing_context, address, factor):
    """Multiply the elements of a line by `factor` in place."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[1]))
        v.store(builder.fmul(v.load(arguments[0]), v.splat(arguments[1])), arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64, factor), generate


# The number of terms of the series exp(r) = sum(r^k / k!) for |r| <= ln(2)/2, by element size in bytes. The remainder
# is less than half a unit in the last place.
_EXP_TERMS = {4: 8, 8: 14}
# ln(2) in two parts (Cody and Waite). The product of n and the first part is exact.
_LN2 = {4: (0.693359375, -2.12194440054690583e-4), 8: (0.693147180369123816490, 1.90821492927058770002e-10)}
# Below this value of x, exp(x) is not a normal number.
_EXP_MIN = {4: -87.0, 8: -708.0}


@intrinsic
def exp_line(typing_context, source, count, shift, target):
    """Compute exp(source - shift) for the first `count` elements of a line, and return the sum.

    The other elements of `target` become 0. source - shift must not be positive. Values below -87 (float32) or -708
    (float64) are replaced by that limit, so that every result is a normal number.
    """

    def generate(context, builder, signature, arguments):
        source, count, shift, target = arguments
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        x = builder.fsub(v.load(source), v.splat(shift))
        minimum = v.constant(_EXP_MIN[v.size])
        x = builder.select(builder.fcmp_ordered("<", x, minimum), minimum, x)
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
        # The conversion saturates because n is NaN where x is NaN. `value` is already NaN there.
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
    """Store an element at an address."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        builder.store(arguments[1], v.pointer(arguments[0], vector=False), align=v.size)
        return context.get_dummy_value()

    return types.void(types.int64, zero, zero), generate


@intrinsic
def item_size(typing_context, zero):
    """Return the size of an element in bytes."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(I64, Vectors(builder, context.get_value_type(signature.args[0])).size)

    return types.int64(zero), generate


@intrinsic
def element(typing_context, value, zero):
    """Convert a number to the element type."""

    def generate(context, builder, signature, arguments):
        return arguments[0]

    return zero(zero, zero), generate


def _convert(v: Vectors, source: ir.Value, dtype: str, lanes: int) -> ir.Value:
    """Load `lanes` unaligned values as a vector (or one value as a scalar), and convert them to the element type."""
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
            v = Vectors(builder, context.get_value_type(signature.args[3]))
            source, code, target, _ = arguments
            leave = builder.append_basic_block("converted")
            switch = builder.switch(code, leave)
            for number, dtype in enumerate(SOURCE_TYPES):
                block = builder.append_basic_block(dtype)
                switch.add_case(ir.Constant(I64, number), block)
                with builder.goto_block(block):
                    values = _convert(v, source, dtype, v.lanes if whole_line else 1)
                    align = LINE_BYTES if whole_line else v.size
                    builder.store(values, v.pointer(target, vector=whole_line), align=align)
                    builder.branch(leave)
            builder.position_at_end(leave)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, zero), generate

    return intrinsic(convert)


# Arguments: (source, code, target, zero). These convert a line of values, or a single value, from the dtype with the
# given code to the element type.
convert_line = _convert_intrinsic(whole_line=True)
convert_element = _convert_intrinsic(whole_line=False)


@intrinsic
def call(typing_context, function, arguments):
    """Call the kernel at an address. The items of the named tuple are passed as int64 values."""

    def generate(context, builder, signature, values):
        integers = integers_of(context, builder, signature.args[1], values[1])
        packed = ir.Constant(ir.ArrayType(I64, len(integers)), ir.Undefined)
        for index, integer in enumerate(integers):
            packed = builder.insert_value(packed, integer, index)
        function_type = ir.FunctionType(ir.VoidType(), [packed.type])
        builder.call(builder.inttoptr(values[0], function_type.as_pointer()), [packed])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate
