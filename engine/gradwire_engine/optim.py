"""SGD: how the weights move."""

from collections.abc import Iterable

import numpy as np

from gradwire_engine.module import Module, Parameter


class SGD:
    """Stochastic gradient descent: W <- W - lr * dL/dW.

    Takes a Module, whose parameters are looked up at each step, or parameters. Parameters that are still uninitialised
    (deferred layers before their first forward) are passed over.
    """

    def __init__(self, module_or_parameters: Module | Iterable[Parameter], lr: float = 0.01) -> None:
        if not np.isfinite(lr) or lr <= 0:
            raise ValueError(f"lr must be a finite number above 0, got {lr!r}")
        self.lr = lr
        self.module = module_or_parameters if isinstance(module_or_parameters, Module) else None
        self._parameters = [] if isinstance(module_or_parameters, Module) else list(module_or_parameters)
        for parameter in self._parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"SGD takes a Module or parameters, got a {type(parameter).__name__} among them")

    def parameters(self) -> list[Parameter]:
        """Return the parameters that step() moves."""
        return self._parameters if self.module is None else self.module.parameters()

    def step(self) -> None:
        """Move every parameter against its gradient."""
        for parameter in self.parameters():
            if parameter.initialized:
                parameter.data -= self.lr * parameter.grad

    def zero_grad(self) -> None:
        """Set every gradient to 0, so that the next backward() starts afresh."""
        for parameter in self.parameters():
            if parameter.initialized:
                parameter.grad[...] = 0
