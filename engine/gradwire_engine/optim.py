"""The SGD optimizer."""

import math
from collections.abc import Iterable
from numbers import Real

from gradwire_engine.module import Module, Parameter


class SGD:
    """Stochastic gradient descent: W <- W - lr * dL/dW.

    Args:
        module_or_parameters: A Module, or an iterable of parameters. The parameters of a Module are looked up at each
            step. A parameter of a deferred layer is skipped until the first forward() initialises it.
        lr: The learning rate, finite and greater than 0.

    Raises:
        TypeError: `module_or_parameters` is neither a Module nor an iterable of parameters.
        ValueError: The learning rate is not a finite number greater than 0, or there are no parameters.
    """

    def __init__(self, module_or_parameters: Module | Iterable[Parameter], lr: float = 0.01) -> None:
        if not _is_positive(lr):
            raise ValueError(f"lr must be finite and greater than 0, got {lr!r}")
        self.lr = lr
        self.module = module_or_parameters if isinstance(module_or_parameters, Module) else None
        self._parameters = [] if isinstance(module_or_parameters, Module) else _listed(module_or_parameters)
        if not self.parameters():
            raise ValueError(
                "SGD got no parameters. Assign layers to attributes of the model, or to lists, tuples or dicts in them"
            )

    def parameters(self) -> list[Parameter]:
        """Return the parameters that step() updates."""
        return self._parameters if self.module is None else self.module.parameters()

    def step(self) -> None:
        """Subtract lr times the gradient from every parameter."""
        for parameter in self.parameters():
            if parameter.initialized:
                parameter.data -= self.lr * parameter.grad

    def zero_grad(self) -> None:
        """Set every gradient to 0. Call it before the next backward(), which adds to the gradients."""
        for parameter in self.parameters():
            if parameter.initialized:
                parameter.grad[...] = 0

    def __repr__(self) -> str:
        return f"SGD(lr={self.lr:g})"


def _listed(parameters: Iterable[Parameter]) -> list[Parameter]:
    if isinstance(parameters, type):
        name = parameters.__name__
        raise TypeError(
            f"SGD takes a Module or parameters, got the class {name}. Pass an instance, for example {name}()"
        )
    if not isinstance(parameters, Iterable):
        raise TypeError(f"SGD takes a Module or parameters, got {parameters!r}")
    listed = list(parameters)
    for parameter in listed:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"SGD takes a Module or parameters, got an item of type {type(parameter).__name__} among them"
            )
    return listed


def _is_positive(lr: object) -> bool:
    return isinstance(lr, Real) and not isinstance(lr, bool) and math.isfinite(lr) and float(lr) > 0
