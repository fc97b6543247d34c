"""The symbol that tracing passes through forward() in place of data, to record the layers of a model."""

import linecache
import sys
from collections.abc import Collection
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from gradwire_engine.module import Module


class TraceError(TypeError):
    """forward() does something that cannot be expressed as a stack of Linear and ReLU layers."""


class Symbol:
    """A placeholder for the input or output of a layer. Layers accept it. All other operations raise TraceError."""

    # With this priority, NumPy evaluates `array * symbol` by calling this class, not element by element.
    __array_priority__ = 1000

    def __init__(self, stack: "list[Module]", reachable: "Collection[Module]") -> None:
        """Create a symbol.

        Args:
            stack: The list to which layers are appended.
            reachable: The modules of the model.
        """
        self._stack = stack
        self._reachable = reachable
        self._depth = len(stack)

    def through(self, layer: "Module") -> "Symbol":
        """Record a call of `layer` with this symbol as its input, and return a symbol for the output."""
        if self._depth != len(self._stack):
            refuse(f"a branch: the input of {layer!r} has already gone through {self._stack[self._depth]!r}")
        if any(layer is earlier for earlier in self._stack):
            refuse(f"the layer {layer!r} used twice")
        if not any(layer is module for module in self._reachable):
            refuse(f"the layer {layer!r}, which is not an attribute of the model (assign it to self in __init__)")
        self._stack.append(layer)
        return Symbol(self._stack, self._reachable)

    @property
    def is_last(self) -> bool:
        """Whether this symbol is the output of the most recently recorded layer."""
        return self._depth == len(self._stack)

    def __repr__(self) -> str:
        what = f"the output of {self._stack[self._depth - 1]!r}" if self._depth else "the input of the model"
        return f"<{what}, without data: gradwire traces forward()>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python and NumPy look up protocol methods, and expect an AttributeError.
            raise AttributeError(name)
        refuse(f"the attribute .{name} of a layer's output")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        refuse("a NumPy function on a layer's output")

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> NoReturn:
        refuse(f"numpy.{ufunc.__name__} on a layer's output")

    def __array_function__(self, function: Any, *_: Any, **__: Any) -> NoReturn:
        refuse(f"numpy.{function.__name__} on a layer's output")


_OPERATIONS = {
    "+": "add radd iadd", "-": "sub rsub isub", "*": "mul rmul imul", "/": "truediv rtruediv itruediv",
    "//": "floordiv rfloordiv ifloordiv", "%": "mod rmod imod", "**": "pow rpow ipow",
    "@": "matmul rmatmul imatmul", "unary -": "neg", "unary +": "pos", "abs()": "abs",
    "a comparison": "lt le gt ge eq ne", "a condition": "bool", "indexing": "getitem setitem",
    "a loop over the rows": "iter", "len()": "len", "float()": "float", "int()": "int",
}  # fmt: skip


def _refusing(operation: str) -> Any:
    def method(*_: Any) -> NoReturn:
        refuse(f"the operation {operation} on a layer's output")

    return method


for _operation, _names in _OPERATIONS.items():
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _refusing(_operation))
Symbol.__hash__ = object.__hash__  # type: ignore[method-assign]


def refuse(what: str) -> NoReturn:
    """Raise a TraceError that states the operation, and the class and line where forward() uses it."""
    message = (
        f"cannot trace {what}: forward() must be a stack of Linear and ReLU layers, each used once, for fit() and files"
    )
    frame = _user_frame()
    if frame is not None:
        path, number = frame.f_code.co_filename, frame.f_lineno
        line = linecache.getline(path, number).strip()
        method = ".".join(frame.f_code.co_qualname.split(".")[-2:])
        message = f'{method}, line {number} of "{path}": {message}\n    {line}'
    raise TraceError(message)


def _user_frame() -> FrameType | None:
    """Return the frame of the innermost forward() call outside the engine."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        engine = str(frame.f_globals.get("__name__", "")).startswith("gradwire_engine.")
        if not engine and frame.f_code.co_name == "forward":
            return frame
        frame = frame.f_back
    return None
