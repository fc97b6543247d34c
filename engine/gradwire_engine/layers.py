"""The layers, Linear and ReLU, each with its forward and backward pass."""

import inspect
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike

from gradwire_engine.backend import Array, array_module, as_array
from gradwire_engine.module import Module, Parameter
from gradwire_engine.randomness import INITS, Init, draw_weights, eager_generator
from gradwire_engine.symbol import Symbol


class Linear(Module):
    """A fully connected layer: y = x W^T + b.

    `Linear(in_features, out_features)` initializes its weights immediately. `Linear(out_features)` is deferred: it
    takes in_features from its first input or, in a remote job, from the training data. Both forms also accept keyword
    arguments.

    Args:
        in_features: The width of the input.
        out_features: The width of the output.
        init: How to draw the initial weights: "kaiming" is N(0, 2 / in_features), "simple" is N(0, 1) * 0.01. The
            biases are 0.
        dtype: The dtype of the weights.

    Attributes:
        W: The weights, of shape (out_features, in_features).
        b: The biases, of shape (out_features,).

    Raises:
        TypeError: The arguments are neither (in_features, out_features) nor (out_features).
        ValueError: `in_features` or `out_features` is not a positive integer, or `init` is unknown.
    """

    @overload
    def __init__(
        self, in_features: int, out_features: int, *, init: Init = "kaiming", dtype: DTypeLike = np.float32
    ) -> None: ...

    @overload
    def __init__(self, out_features: int, *, init: Init = "kaiming", dtype: DTypeLike = np.float32) -> None: ...

    def __init__(
        self, *features: int, init: Init = "kaiming", dtype: DTypeLike = np.float32, **named_features: int
    ) -> None:
        super().__init__()
        in_features, out_features = _features(features, named_features)
        if init not in INITS:
            raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
        self.init = init
        self.dtype = np.dtype(dtype)
        self.in_features: int | None = None
        self.out_features = out_features
        self.W = Parameter()
        self.b = Parameter()
        if in_features is not None:
            self.initialize(in_features)

    def initialize(self, in_features: int) -> None:
        """Draw the weights for inputs of width `in_features`, and set the biases to 0."""
        W = draw_weights(eager_generator(), in_features, self.out_features, self.init, self.dtype)
        self.set_weights(W, np.zeros(self.out_features, self.dtype))

    def set_weights(self, W: Array, b: Array) -> None:
        """Replace the weights and biases with these arrays, without copying them.

        Args:
            W: The weights, of shape (out_features, in_features).
            b: The biases, of shape (out_features,).
        """
        self.in_features = W.shape[1]
        xp = array_module(W)
        self.W.bind(W, xp.zeros_like(W))
        self.b.bind(b, xp.zeros_like(b))

    def forward(self, x: Any) -> Any:
        """Return x W^T + b, of shape (batch, out_features), for x of shape (batch, in_features).

        x is converted to the dtype of W.
        """
        if isinstance(x, Symbol):
            return x.through(self)
        x = as_array(x)
        if x.ndim != 2:
            raise ValueError(f"{self!r} expects x of shape (batch, in_features), got {x.shape}")
        if not self.W.initialized:
            self.initialize(x.shape[1])
        if x.shape[1] != self.in_features:
            raise ValueError(f"{self!r} expects x of shape (batch, {self.in_features}), got {x.shape}")
        self.x = x.astype(self.W.data.dtype, copy=False)
        return self.x @ self.W.data.T + self.b.data

    def backward(self, grad_output: Array) -> Array:
        """Add dW = dY^T X and db = sum of dY over the batch to the gradients, and return dX = dY W.

        Args:
            grad_output: dY, of shape (batch, out_features).

        Returns:
            dX, of shape (batch, in_features).
        """
        self.W.grad += grad_output.T @ self.x
        self.b.grad += grad_output.sum(axis=0)
        return grad_output @ self.W.data

    def __repr__(self) -> str:
        if self.in_features is None:
            return f"Linear(out_features={self.out_features})"
        return f"Linear(in_features={self.in_features}, out_features={self.out_features})"


def _features(positional: tuple[int, ...], named: dict[str, int]) -> tuple[int | None, int]:
    """Return in_features and out_features. For a deferred layer, in_features is None."""
    count = len(positional) + len(named)
    names = ("in_features", "out_features")[-count:] if count else ()
    given = dict(zip(names, positional, strict=False)) | named
    if count not in (1, 2) or set(given) != set(names):
        wrong = ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())])
        raise TypeError(f"Linear takes (in_features, out_features) or (out_features), got ({wrong})")
    for name, size in given.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"Linear takes a positive whole number as {name}, got {size!r}")
    in_features = int(given["in_features"]) if "in_features" in given else None
    return in_features, int(given["out_features"])


def _usual_form(
    self: Linear, in_features: int, out_features: int, *, init: Init = "kaiming", dtype: "DTypeLike" = "float32"
) -> None:
    """The signature that help() shows for Linear, because help() does not show overloads."""


setattr(Linear.__init__, "__signature__", inspect.signature(_usual_form))  # noqa: B010  (unknown to type checkers)


class ReLU(Module):
    """The rectified linear unit: y = max(x, 0), elementwise."""

    def forward(self, x: Any) -> Any:
        """Return an array of the same shape as x that contains x where x > 0, and 0 elsewhere."""
        if isinstance(x, Symbol):
            return x.through(self)
        x = as_array(x)
        self.mask = x > 0
        return x * self.mask

    def backward(self, grad_output: Array) -> Array:
        """Return dX, which equals dY where x > 0 and is 0 elsewhere. grad_output is dY, of the same shape as x."""
        return grad_output * self.mask
