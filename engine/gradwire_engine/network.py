"""The description of a model that plans use: layer widths, activations, and offsets into the flat weight vector."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from gradwire_engine.backend import Array


@dataclass(frozen=True)
class DenseLayer:
    """A Linear layer and, optionally, the ReLU after it.

    Attributes:
        in_features: The width of the input.
        out_features: The width of the output.
        relu: Whether a ReLU follows.
        offset: The index in the flat vector at which the layer begins: first W, row by row, and then b.
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
        """Return views of W and b in a flat vector. Shapes: (out_features, in_features) and (out_features,)."""
        bias = self.offset + self.in_features * self.out_features
        W = vector[self.offset : bias].reshape(self.out_features, self.in_features)
        return W, vector[bias : self.offset + self.size]


@dataclass(frozen=True)
class Network:
    """A stack of dense layers.

    Attributes:
        layers: The layers in order.
        relu_input: Whether a ReLU precedes the first layer.
    """

    layers: tuple[DenseLayer, ...]
    relu_input: bool

    @classmethod
    def from_stack(cls, stack: list[tuple[int, int] | None]) -> Self:
        """Build a network from a list in which (in_features, out_features) means Linear, and None means ReLU."""
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
        """The total number of parameters, which is the length of the flat vector."""
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
