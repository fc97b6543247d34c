"""Linear and ReLU, forward and backward side by side."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gradwire_engine.backend import Array, array_module
from gradwire_engine.module import Module, Parameter
from gradwire_engine.randomness import draw_weights, eager_generator
from gradwire_engine.symbol import Symbol


class Linear(Module):
    """y = x W^T + b.

    Linear(in_features, out_features) has its weights at once. Linear(out_features) is deferred: it takes in_features
    from the first input that it sees, or, trained remotely, from the data. `init` is "kaiming" or "simple".
    W has shape (out_features, in_features), b has shape (out_features,).
    """

    def __init__(self, *features: int, init: str = "kaiming", dtype: DTypeLike = np.float32) -> None:
        super().__init__()
        if len(features) not in (1, 2):
            raise ValueError(
                f"Linear takes (in_features, out_features) or (out_features), got {len(features)} arguments"
            )
        for size in features:
            if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
                raise ValueError(f"Linear takes positive whole numbers of features, got {size!r}")
        if init not in ("kaiming", "simple"):
            raise ValueError(f'init must be "kaiming" or "simple", got {init!r}')
        self.init = init
        self.dtype = np.dtype(dtype)
        self.in_features: int | None = None
        self.out_features = int(features[-1])
        self.W = Parameter()
        self.b = Parameter()
        if len(features) == 2:
            self.initialize(int(features[0]))

    def initialize(self, in_features: int) -> None:
        """Draw the weights, now that the width of the input is known. The biases are 0."""
        W = draw_weights(eager_generator(), in_features, self.out_features, self.init, self.dtype)
        self.set_weights(W, np.zeros(self.out_features, self.dtype))

    def set_weights(self, W: Array, b: Array) -> None:
        """Use these arrays, (out_features, in_features) and (out_features,), from now on."""
        self.in_features = W.shape[1]
        xp = array_module(W)
        self.W.bind(W, xp.zeros_like(W))
        self.b.bind(b, xp.zeros_like(b))

    def forward(self, x: Any) -> Any:
        """Map x of shape (batch, in_features) to (batch, out_features); x is converted to the dtype of W."""
        if isinstance(x, Symbol):
            return x.through(self)
        if x.ndim != 2:
            raise ValueError(f"{self!r} expects x of shape (batch, in_features), got {x.shape}")
        if not self.W.initialized:
            self.initialize(x.shape[1])
        if x.shape[1] != self.in_features:
            raise ValueError(f"{self!r} expects x of shape (batch, {self.in_features}), got {x.shape}")
        self.x = x.astype(self.W.data.dtype, copy=False)
        return self.x @ self.W.data.T + self.b.data

    def backward(self, grad_output: Array) -> Array:
        """dW = dY^T X, db = sum of dY over the batch, dX = dY W."""
        self.W.grad += grad_output.T @ self.x
        self.b.grad += grad_output.sum(axis=0)
        return grad_output @ self.W.data

    def __repr__(self) -> str:
        return (
            f"Linear({self.out_features})"
            if self.in_features is None
            else f"Linear({self.in_features}, {self.out_features})"
        )


class ReLU(Module):
    """y = max(x, 0), element by element."""

    def forward(self, x: Any) -> Any:
        """Return x where it is positive and 0 elsewhere; the shape stays."""
        if isinstance(x, Symbol):
            return x.through(self)
        self.mask = x > 0
        return x * self.mask

    def backward(self, grad_output: Array) -> Array:
        """dX = dY where x was positive, 0 elsewhere."""
        return grad_output * self.mask

    def __repr__(self) -> str:
        return "ReLU()"
