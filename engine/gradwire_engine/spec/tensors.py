"""Converts between arrays and Tensor or TensorRef messages, which contain a dtype, a shape and little-endian bytes."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gradwire_engine.backend import Array
from gradwire_proto.v1.tensor_pb2 import DataType, Tensor, TensorRef

_DTYPES: dict[DataType, Any] = {
    DataType.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    DataType.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    DataType.DATA_TYPE_UINT8: np.dtype("u1"),
    DataType.DATA_TYPE_INT8: np.dtype("i1"),
    DataType.DATA_TYPE_UINT16: np.dtype("<u2"),
    DataType.DATA_TYPE_INT16: np.dtype("<i2"),
    DataType.DATA_TYPE_UINT32: np.dtype("<u4"),
    DataType.DATA_TYPE_INT32: np.dtype("<i4"),
    DataType.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}

# No real tensor has more elements. The limit keeps sizes in bytes within 64 bits.
_MAX_ELEMENTS = 2**48
# The maximum number of dimensions of a NumPy array.
MAX_DIMENSIONS = 64


class TensorError(ValueError):
    """A Tensor or TensorRef message is invalid, or an array cannot be converted to a message."""


@dataclass(frozen=True)
class TensorType:
    """The dtype and shape of a tensor."""

    dtype: "np.dtype[np.generic]"
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """The total size of the elements, in bytes."""
        return self.dtype.itemsize * prod(self.shape)


def data_type(dtype: "np.dtype[np.generic]") -> DataType:
    """Convert a NumPy dtype to a DataType. Raises TensorError if the dtype is not supported."""
    if dtype.newbyteorder("<") not in _DATA_TYPES:
        raise TensorError(
            f"arrays of dtype {dtype} cannot be sent: convert to one of {', '.join(map(str, _DATA_TYPES))}"
        )
    return _DATA_TYPES[dtype.newbyteorder("<")]


def numpy_dtype(value: DataType) -> "np.dtype[np.generic]":
    """Convert a DataType to a NumPy dtype. Raises TensorError if the DataType is unknown."""
    if value not in _DTYPES:
        raise TensorError(f"dtype must be one of {', '.join(map(DataType.Name, _DTYPES))}, got {value}")
    dtype: np.dtype[np.generic] = _DTYPES[value]
    return dtype


def tensor_type(message: Tensor | TensorRef) -> TensorType:
    """Return the dtype and shape that a message describes. Raises TensorError if they are invalid."""
    if len(message.shape) > MAX_DIMENSIONS:
        raise TensorError(f"shape must have at most {MAX_DIMENSIONS} dimensions, got {len(message.shape)}")
    shape = tuple(message.shape)
    if not shape:
        raise TensorError("shape is missing")
    if any(size < 1 for size in shape):
        raise TensorError(f"every size in a shape must be at least 1, got {list(shape)}")
    if prod(shape) > _MAX_ELEMENTS:
        raise TensorError(f"shape {list(shape)} has more elements than the {_MAX_ELEMENTS} that a tensor may have")
    if isinstance(message, TensorRef) and not re.fullmatch("[0-9a-f]{64}", message.sha256):
        raise TensorError(f"sha256 must be 64 lower-case hexadecimal digits, got {message.sha256[:80]!r}")
    return TensorType(numpy_dtype(message.dtype), shape)


def wire_bytes(array: Array) -> memoryview:
    """Return the elements as little-endian bytes in row-major order. Copies the array only if its layout differs."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def tensor_ref(array: Array) -> TensorRef:
    """Return a reference to an array, which identifies the array by the digest of its content."""
    digest = hashlib.sha256(wire_bytes(array)).hexdigest()
    return TensorRef(dtype=data_type(array.dtype), shape=_sizes(array.shape), sha256=digest)


def to_tensor(array: Array) -> Tensor:
    """Convert an array to a message."""
    return Tensor(dtype=data_type(array.dtype), shape=_sizes(array.shape), data=bytes(wire_bytes(array)))


def from_tensor(message: Tensor) -> Array:
    """Return a read-only array. Raises TensorError if the message is invalid."""
    kind = tensor_type(message)
    data = message.data  # Each access copies the data.
    if len(data) != kind.size_bytes:
        raise TensorError(
            f"a tensor of dtype {kind.dtype} and shape {list(kind.shape)} has {kind.size_bytes} bytes, got {len(data)}"
        )
    return np.frombuffer(data, kind.dtype).reshape(kind.shape)


def _sizes(shape: Sequence[int]) -> list[int]:
    if not shape or 0 in shape:
        raise TensorError(
            f"an array must have at least one dimension and no dimension of size 0, got shape {tuple(shape)}"
        )
    return list(shape)
