"""The building blocks of a model: Parameter, Module and Sequential. The layers are in layers.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gradwire_engine.backend import Array, array_module

if TYPE_CHECKING:
    import keras
    import torch


class Parameter:
    """Trainable weights: two arrays of the same shape, `data` and `grad`.

    Assigning to `data` or `grad` copies the values into the existing array, which can be a view into the model's flat
    vector. The parameters of a deferred layer are uninitialised until the layer knows their shape. Until then, both
    arrays are None.

    Args:
        data: The initial weights. Integers are converted to float32.
    """

    def __init__(self, data: ArrayLike | None = None) -> None:
        self._data: Array | None = None
        self._grad: Array | None = None
        if data is not None:
            array: Any = data if hasattr(data, "dtype") else np.asarray(data)
            if not np.issubdtype(array.dtype, np.floating):
                array = array.astype(np.float32)
            self.bind(array, array_module(array).zeros_like(array))

    @property
    def initialized(self) -> bool:
        """Whether the parameter has data."""
        return self._data is not None

    @property
    def data(self) -> Any:
        """The weights, or None if the parameter is uninitialised."""
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        if self._data is None:
            self.bind(value, array_module(value).zeros_like(value))
        elif value is not self._data:
            _copy_into(self._data, value, "data")

    @property
    def grad(self) -> Any:
        """The gradient of the loss with respect to `data`, accumulated since the last zero_grad()."""
        return self._grad

    @grad.setter
    def grad(self, value: Array) -> None:
        if self._grad is None:
            raise ValueError("this parameter has no data yet, so it cannot have a gradient: run forward() first")
        if value is not self._grad:
            _copy_into(self._grad, value, "grad")

    def bind(self, data: Array, grad: Array) -> None:
        """Replace both arrays, without copying them. The two arrays must have the same shape."""
        self._data, self._grad = data, grad

    def __repr__(self) -> str:
        if self._data is None:
            return "Parameter(uninitialised)"
        return f"Parameter(shape={self._data.shape}, dtype={self._data.dtype})"


def _copy_into(target: Array, value: Array, what: str) -> None:
    if target.shape != np.shape(value):
        raise ValueError(
            f"Parameter.{what} has shape {target.shape}; cannot assign an array of shape {np.shape(value)}"
        )
    target[...] = value


class Module:
    """The base class of layers and models. A module contains parameters and other modules.

    Subclasses define forward(x) and backward(grad_output). In a model for fit() or a server, forward may only pass the
    input from layer to layer.

    Attributes:
        class_names: The names of the classes, in the order of the outputs, or an empty tuple. Training with text
            targets sets this attribute. Model files and servers store it.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.params: dict[str, Parameter] = {}

    def forward(self, x: Any) -> Any:
        """Map an input of shape (batch, in_features) to an output of shape (batch, out_features)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x)")

    def backward(self, grad_output: Array) -> Array:
        """Map the gradient of the loss with respect to the output to the gradient with respect to the input.

        Also add the gradient of each parameter to its `grad`. Call forward() first, because backward() uses values that
        forward() stores.

        Args:
            grad_output: dL/d(output), of shape (batch, out_features).

        Returns:
            dL/d(input), of shape (batch, in_features).
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward(grad_output)")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "params" not in self.__dict__:
            raise AttributeError(
                f"cannot set self.{name} yet: call super().__init__() first in {type(self).__name__}.__init__"
            )
        if isinstance(value, Parameter):
            self.params[name] = value
        super().__setattr__(name, value)

    def parameters(self) -> list[Parameter]:
        """Return the parameters of this module and of all nested modules, without duplicates."""
        found = {member: None for _, member in self._members() if isinstance(member, Parameter)}
        for child in self.children().values():
            found.update(dict.fromkeys(child.parameters()))
        return list(found)

    def children(self) -> dict[str, "Module"]:
        """Return the direct children of this module, keyed by attribute name.

        This includes modules in lists, tuples and dicts. For example, the key of self.layers[0] is "layers.0".
        """
        return {name: member for name, member in self._members() if isinstance(member, Module)}

    def _members(self) -> Iterator[tuple[str, "Parameter | Module"]]:
        """Yield the parameters and modules in the attributes, including those in lists, tuples and dicts."""
        for name, value in self.__dict__.items():
            if name != "params":
                yield from _members_of(name, value, frozenset())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield the path of each nested module and the module itself, for example ("encoder.fc1", Linear(...))."""
        for name, child in self.children().items():
            yield prefix + name, child
            yield from child.named_modules(f"{prefix}{name}.")

    def summary(self) -> None:
        """Print each layer with its output shape, its number of parameters, and its size in bytes.

        A layer that has no weights yet is shown as deferred.
        """
        from gradwire_engine.summary import summary_text  # noqa: PLC0415  (it imports the layers)

        print(summary_text(self))

    def save(self, path: str | Path) -> Path:
        """Write the model to a .safetensors or .npz file, which `Module.load` can read.

        Both contain the arrays "fc1.W" and "fc1.b" for a layer fc1, and the model's layers and class names. You can
        read an .npz file with NumPy alone: numpy.load(path).

        Args:
            path: The path of the file, which must end in .safetensors or .npz.

        Returns:
            The path.

        Raises:
            ValueError: The path has a different suffix, the file cannot be written, or a layer has no weights yet.
            TraceError: The model is not a stack of Linear and ReLU layers.
        """
        from gradwire_engine.spec.files import save_model  # noqa: PLC0415  (it imports the layers)

        return save_model(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> "Sequential":
        """Read a model from a .safetensors or .npz file that `save` or a server wrote.

        Args:
            path: The path of the file.

        Returns:
            A Sequential with the same layers and names, rebuilt from the file. The original model's class is not
            needed.

        Raises:
            ValueError: The file cannot be read, or is not a gradwire model.
        """
        from gradwire_engine.spec.files import load_model  # noqa: PLC0415  (it imports the layers)

        return load_model(Path(path))

    def to_torch(self) -> "torch.nn.Sequential":
        """Return a torch.nn.Sequential with the same layers, names and outputs, and copies of the weights.

        The model is on the CPU. PyTorch does not allow periods in names, so "encoder.fc1" becomes "encoder_fc1".

        Raises:
            ImportError: PyTorch is not installed.
            TraceError: The model is not a stack of Linear and ReLU layers.
            ValueError: A layer has no weights yet.
        """
        from gradwire_engine.conversion import to_torch  # noqa: PLC0415  (it imports the layers)

        return to_torch(self)

    def to_keras(self) -> "keras.Sequential":
        """Return a keras.Sequential with the same layers, names and outputs, and copies of the weights.

        Raises:
            ImportError: Keras is not installed.
            TraceError: The model is not a stack of Linear and ReLU layers.
            ValueError: A layer has no weights yet, or there is no Linear layer.
        """
        from gradwire_engine.conversion import to_keras  # noqa: PLC0415  (it imports the layers)

        return to_keras(self)

    def _repr_html_(self) -> str:
        """Return the summary as HTML for a notebook."""
        from gradwire_engine.summary import summary_html  # noqa: PLC0415  (it imports the layers)

        return summary_html(self)

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.children().items()]
        inside = "".join(f"\n  {line}" for line in lines)
        return f"{type(self).__name__}({inside}\n)" if lines else f"{type(self).__name__}()"


def _members_of(name: str, value: object, containers: frozenset[int]) -> Iterator[tuple[str, Parameter | Module]]:
    """Yield `value` if it is a parameter or a module. If it is a container, yield the parameters and modules in it."""
    if isinstance(value, Parameter | Module):
        yield name, value
    elif isinstance(value, list | tuple | dict) and id(value) not in containers:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _members_of(f"{name}.{key}", item, containers | {id(value)})


class Sequential(Module):
    """A sequence of modules that run one after the other.

    `Sequential(Linear(4, 8), ReLU())` numbers its modules, and `Sequential(fc1=Linear(4, 8), relu=ReLU())` names them.
    Use model.fc1 to get a module by name, or model["0"] to get it by number.
    """

    def __init__(self, *modules: Module, **named: Module) -> None:
        super().__init__()
        self._stack = {str(index): module for index, module in enumerate(modules)} | named
        for name, module in self._stack.items():
            if not isinstance(module, Module):
                raise TypeError(f"Sequential takes modules, got an item of type {type(module).__name__} as {name!r}")

    def children(self) -> dict[str, Module]:
        """Return the modules in order, keyed by name."""
        return self._stack

    def __getitem__(self, name: str) -> Module:
        return self._stack[name]

    def __getattr__(self, name: str) -> Module:
        # Python calls this only if normal lookup fails, so a layer name never hides an attribute of the class.
        if name in self.__dict__.get("_stack", {}):
            return self._stack[name]
        raise AttributeError(f"{type(self).__name__} has no attribute or layer {name!r}")

    def forward(self, x: Any) -> Any:
        """Pass x, of shape (batch, in_features), through all modules in order."""
        for module in self._stack.values():
            x = module(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        """Pass the gradient, of shape (batch, out_features), through all modules in reverse order."""
        for module in reversed(self._stack.values()):
            grad_output = module.backward(grad_output)
        return grad_output
