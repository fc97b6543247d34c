"""The losses MSE and CrossEntropy, and the conversion of targets."""

from typing import Any

import numpy as np

from gradwire_engine.backend import Array, array_module


def target_matrix(y_true: Any, y_pred: Array) -> Array:
    """Convert targets to a matrix with the same shape and dtype as the predictions.

    Args:
        y_true: 1-D integers are class indices, and become one-hot rows. If the model has one output, a 1-D array of
            any type contains regression targets. A 2-D array keeps its values.
        y_pred: The predictions, of shape (N, outputs).

    Raises:
        ValueError: The targets do not fit the predictions.
    """
    xp = array_module(y_pred)
    y_true = xp.asarray(y_true)
    rows, outputs = y_pred.shape
    if y_true.ndim == 1 and len(y_true) == rows:
        if outputs == 1:
            return y_true.astype(y_pred.dtype).reshape(rows, 1)
        if np.issubdtype(y_true.dtype, np.integer):
            low, high = int(y_true.min()), int(y_true.max())
            if low < 0 or high >= outputs:
                raise ValueError(f"class indices must be 0..{outputs - 1} for {outputs} outputs, got {low}..{high}")
            one_hot: Array = xp.eye(outputs, dtype=y_pred.dtype)[y_true]
            return one_hot
        raise ValueError(
            f"1-D float targets need a model with one output, but this one has {outputs}: "
            "give integers for class indices, or 2-D targets"
        )
    if y_true.shape == y_pred.shape:
        return y_true.astype(y_pred.dtype, copy=False)
    raise ValueError(f"targets of shape {y_true.shape} do not fit predictions of shape {y_pred.shape}")


class MSE:
    """Mean squared error over all elements: L = mean((y_pred - y_true)^2)."""

    def forward(self, y_pred: Array, y_true: Any) -> Array:
        """Return the loss, a scalar.

        Args:
            y_pred: The outputs of the model, of shape (N, outputs).
            y_true: The targets; see `target_matrix`.

        Raises:
            ValueError: The targets do not fit the predictions.
        """
        self.y_pred = y_pred
        self.y_true = target_matrix(y_true, y_pred)
        loss: Array = array_module(y_pred).mean((y_pred - self.y_true) ** 2)
        return loss

    def backward(self) -> Array:
        """Return dL/dy_pred = 2 (y_pred - y_true) / (N outputs), of shape (N, outputs)."""
        return 2 * (self.y_pred - self.y_true) / self.y_true.size

    def __repr__(self) -> str:
        return "MSE()"


class CrossEntropy:
    """Cross-entropy, averaged over the rows: L = -mean(sum(y_true * log p)), where the sum is over the classes.

    Args:
        from_logits: If true, the model outputs logits, and p is their softmax. If false, the model outputs
            probabilities, and p is those probabilities clipped to [1e-12, 1].
    """

    def __init__(self, from_logits: bool = True) -> None:
        self.from_logits = from_logits

    def forward(self, y_pred: Array, y_true: Any) -> Array:
        """Return the loss, a scalar.

        Args:
            y_pred: The outputs of the model, of shape (N, classes).
            y_true: The targets; see `target_matrix`.

        Raises:
            ValueError: The targets do not fit the predictions.
        """
        xp = array_module(y_pred)
        self.y_true = target_matrix(y_true, y_pred)
        if self.from_logits:
            # This is log-softmax. Subtracting the largest logit keeps exp from overflowing.
            shifted = y_pred - y_pred.max(axis=1, keepdims=True)
            log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
            self.p = xp.exp(log_p)
        else:
            self.p = xp.clip(y_pred, 1e-12, 1.0)
            log_p = xp.log(self.p)
        loss: Array = -xp.mean(xp.sum(self.y_true * log_p, axis=1))
        return loss

    def backward(self) -> Array:
        """Return dL/dy_pred, of shape (N, classes).

        For logits, dL/dy_pred = (p - y_true) / N. For probabilities, dL/dy_pred = -y_true / (p N).
        """
        rows = len(self.p)
        if self.from_logits:
            return (self.p - self.y_true) / rows
        return -self.y_true / (self.p * rows)

    def __repr__(self) -> str:
        return "CrossEntropy()" if self.from_logits else "CrossEntropy(from_logits=False)"


Loss = MSE | CrossEntropy
