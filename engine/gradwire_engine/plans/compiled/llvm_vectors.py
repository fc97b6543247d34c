"""Helpers that generate LLVM vector code for 64-byte lines. tiles.py and vector_intrinsics.py use them."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

LINE_BYTES = 64

I64 = ir.IntType(64)
I32 = ir.IntType(32)


def integers_of(context: Any, builder: ir.IRBuilder, tuple_type: Any, value: ir.Value) -> list[ir.Value]:
    """Convert the items of a tuple of integers and booleans to int64 values."""
    return [
        context.cast(builder, builder.extract_value(value, index), kind, types.int64)
        for index, kind in enumerate(tuple_type)
    ]


class Vectors:
    """Generates vector code for lines of one element type."""

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
        one = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
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
        return self.builder.add(address, ir.Constant(I64, offset)) if offset else address

    def shuffle(self, a: ir.Value, b: ir.Value, picks: list[int]) -> ir.Value:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), picks))

    def valid_lanes(self, count: ir.Value) -> ir.Value:
        """Return a mask in which the first `count` lanes are set."""
        vector = ir.VectorType(I64, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(undefined, count, ir.Constant(I32, 0))
        counts = self.shuffle(one, undefined, [0] * self.lanes)
        return self.builder.icmp_signed("<", ir.Constant(vector, list(range(self.lanes))), counts)

    def reduce(self, value: ir.Value, combine: Any) -> ir.Value:
        """Combine the lanes pairwise, always in the same order, and return a scalar."""
        half = self.lanes // 2
        while half:
            picks = [(lane + half) % self.lanes for lane in range(self.lanes)]
            value = combine(value, self.shuffle(value, value, picks))
            half //= 2
        return self.builder.extract_element(value, ir.Constant(I32, 0))
