"""Packs all parameters of a model into one flat vector, so that a checkpoint is a single write."""

from collections.abc import Sequence

from gradwire_engine.backend import Array, array_module
from gradwire_engine.module import Parameter


def pack(parameters: Sequence[Parameter]) -> Array:
    """Move the data of all parameters into one flat vector, in order, and their gradients into another.

    Afterwards, the arrays of each parameter are views into these vectors. If the parameters are already packed in this
    order, nothing changes.

    Args:
        parameters: One or more initialised parameters.

    Returns:
        The data vector. Its dtype is the dtype of the first parameter.
    """
    first = parameters[0].data
    xp = array_module(first)
    size = sum(parameter.data.size for parameter in parameters)
    if _is_packed(parameters, size):
        return first.base
    data, grad = xp.empty(size, first.dtype), xp.empty(size, first.dtype)
    offset = 0
    for parameter in parameters:
        window = slice(offset, offset + parameter.data.size)
        shape = parameter.data.shape
        data[window], grad[window] = parameter.data.ravel(), parameter.grad.ravel()
        parameter.bind(data[window].reshape(shape), grad[window].reshape(shape))
        offset = window.stop
    return data


def _is_packed(parameters: Sequence[Parameter], size: int) -> bool:
    vector = parameters[0].data.base
    if vector is None or vector.ndim != 1 or vector.size != size:
        return False
    offset = 0
    for parameter in parameters:
        expected = vector[offset : offset + parameter.data.size]
        if parameter.data.base is not vector or parameter.data.ctypes.data != expected.ctypes.data:
            return False
        offset += parameter.data.size
    return True
