"""Lists the layers of a model in the order in which forward() calls them."""

from gradwire_engine.layers import Linear, ReLU
from gradwire_engine.module import Module
from gradwire_engine.symbol import Symbol, TraceError


def layers_of(model: Module) -> list[tuple[str, Linear | ReLU]]:
    """Return the name and the object of each layer, for example [("fc1", Linear(...)), ("relu1", ReLU())].

    Raises:
        TraceError: forward() does something other than pass its input from layer to layer. The message names the
            operation and the line.
    """
    if isinstance(model, type):
        raise TraceError(f"a model must be an instance, got the class {model.__name__}. Pass {model.__name__}()")
    if not isinstance(model, Module):
        raise TraceError(f"a model must be a gradwire Module, got {type(model).__name__}")
    stack: list[Module] = []
    named_modules = list(model.named_modules())
    output = model.forward(Symbol(stack, [model, *(module for _, module in named_modules)]))
    if not isinstance(output, Symbol):
        raise TraceError(
            f"{type(model).__name__}.forward must return the last layer's output, got {_described(output)}"
        )
    if not output.is_last:
        raise TraceError(
            f"{type(model).__name__}.forward returns the output of an earlier layer than {stack[-1]!r}: "
            "remove the layers that have no effect, or pass their output on"
        )
    names = {id(module): name for name, module in reversed(named_modules)}
    layers = [layer for layer in stack if isinstance(layer, Linear | ReLU)]
    return [(names.get(id(layer), str(position)), layer) for position, layer in enumerate(layers)]


def _described(output: object) -> str:
    """Return what forward() returned, without its elements."""
    shape = getattr(output, "shape", None)
    return f"an array of shape {shape}" if shape is not None else f"a value of type {type(output).__name__}"
