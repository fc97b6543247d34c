"""Work on single lines, rows and elements, as LLVM vector code: conversion, softmax, transposition; calls by address.

Addresses are plain integers here, as in tiles.py, and nothing checks bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gradwire_engine.plans.compiled.llvm_vectors import I64, LINE_BYTES, Vectors


@intrinsic
def transpose_block(typing_context, source, target, zero):
    """Transpose a square of lines: lanes x lanes elements at `source` to `target`."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
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
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        valid = v.valid_lanes(arguments[1])
        value = builder.select(valid, v.load(arguments[0]), v.constant(float("-inf")))
        return v.reduce(value, lambda a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))

    return zero(types.int64, types.int64, zero), generate


@intrinsic
def first_equal(typing_context, address, count, value):
    """Return the place of the first of the first `count` elements of a line that is equal to `value`, or else lanes."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        equal = builder.fcmp_ordered("==", v.load(arguments[0]), v.splat(arguments[2]))
        bits = builder.bitcast(builder.and_(equal, v.valid_lanes(arguments[1])), ir.IntType(v.lanes))
        # One bit more, so that there is always one to find.
        found = builder.or_(builder.zext(bits, I64), ir.Constant(I64, 1 << v.lanes))
        return builder.cttz(found, ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64, types.int64, value), generate


@intrinsic
def scale_line(typing_context, address, factor):
    """Multiply the elements of a line."""

    def generate(context, builder, signature, arguments):
        v = Vectors(builder, context.get_value_type(signature.args[1]))
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
        v = Vectors(builder, context.get_value_type(signature.args[2]))
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
        v = Vectors(builder, context.get_value_type(signature.args[2]))
        builder.store(arguments[1], v.pointer(arguments[0], vector=False), align=v.size)
        return context.get_dummy_value()

    return types.void(types.int64, zero, zero), generate


@intrinsic
def item_size(typing_context, zero):
    """Return the bytes of an element."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(I64, Vectors(builder, context.get_value_type(signature.args[0])).size)

    return types.int64(zero), generate


@intrinsic
def element(typing_context, value, zero):
    """Return a number as an element, of the type of `zero`."""

    def generate(context, builder, signature, arguments):
        return arguments[0]

    return zero(zero, zero), generate


# The dtypes of data that `convert` reads, in the order of their codes.
SOURCES = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


def _convert(v: Vectors, source: ir.Value, dtype: str, lanes: int) -> ir.Value:
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
            v = Vectors(builder, context.get_value_type(signature.args[3]))
            source, code, target, _ = arguments
            leave = builder.append_basic_block("converted")
            switch = builder.switch(code, leave)
            for number, dtype in enumerate(SOURCES):
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
        function_type = ir.FunctionType(ir.VoidType(), [I64] * len(integers))
        builder.call(builder.inttoptr(values[0], function_type.as_pointer()), integers)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate
