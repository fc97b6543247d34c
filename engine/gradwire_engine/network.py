"""A model as plans see it: widths, activations, and the position of the weights of each layer in the flat vector."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from gradwire_engine.backend import Array


@dataclass(frozen=True)
class DenseLayer:
    """A Linear layer, with the ReLU that may follow it.

    Attributes:
        in_features: The width of the input.
        out_features: The width of the output.
        relu: Whether a ReLU follows.
        offset: The index in the flat vector at which W begins, row by row, followed by b.
    """

    in_features: int
    out_features: int
    relu: bool
    offset: int

    @property
    def size(self) -> int:
        """The number of parameters."""
        return (self.in_features + 1) * self.out_features

    def weights(self, vector: Array) -> tuple[Array, Array]:
        """Return W of shape (out_features, in_features) and b of shape (out_features,), as views into a flat vector."""
        bias = self.offset + self.in_features * self.out_features
        W = vector[self.offset : bias].reshape(self.out_features, self.in_features)
        return W, vector[bias : self.offset + self.size]


@dataclass(frozen=True)
class Network:
    """A stack of dense layers.

    Attributes:
        layers: The layers, first to last.
        relu_input: Whether a ReLU precedes the first one.
    """

    layers: tuple[DenseLayer, ...]
    relu_input: bool

    @classmethod
    def from_stack(cls, stack: list[tuple[int, int] | None]) -> Self:
        """Build from a stack in which (in_features, out_features) stands for a Linear and None for a ReLU."""
        layers: list[DenseLayer] = []
        relu_input = False
        offset = 0
        for position, widths in enumerate(stack):
            if widths is None:
                relu_input = relu_input or not layers
                continue
            relu = stack[position + 1 : position + 2] == [None]
            layers.append(DenseLayer(*widths, relu=relu, offset=offset))
            offset += layers[-1].size
        return cls(tuple(layers), relu_input)

    @cached_property
    def size(self) -> int:
        """The number of all parameters, which is the length of the flat vector."""
        return sum(layer.size for layer in self.layers)

    @cached_property
    def widest(self) -> int:
        """The number of features of the widest layer, or of the input if that is wider."""
        return max(self.in_features, *(layer.out_features for layer in self.layers))

    @property
    def in_features(self) -> int:
        """The width of the input."""
        return self.layers[0].in_features

    @property
    def out_features(self) -> int:
        """The width of the output."""
        return self.layers[-1].out_features
