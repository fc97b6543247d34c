"""Adds the probabilities of the classes to an ONNX file, without the onnx package.

A Protocol Buffers parser merges consecutive parts of the same message, so a second part of the graph, with a Softmax
node and an output, can be appended to the file. The field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from gradwire_proto.v1.tensor_pb2 import DataType

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE = 1, 2, 3, 4
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_SHAPE_DIMENSION = 1
_DIMENSION_VALUE, _DIMENSION_NAME = 1, 2
_ELEMENTS = {DataType.DATA_TYPE_FLOAT32: 1, DataType.DATA_TYPE_FLOAT64: 11}


def probabilities_part(classes: int, dtype: DataType) -> bytes:
    """Return bytes that, at the end of an ONNX file, add the output "probabilities", the softmax of "outputs".

    Args:
        classes: The number of classes.
        dtype: The type of the outputs.
    """
    node = _text(_NODE_INPUT, "outputs") + _text(_NODE_OUTPUT, "probabilities")
    node += _text(_NODE_NAME, "probabilities") + _text(_NODE_OP_TYPE, "Softmax")
    shape = _part(_SHAPE_DIMENSION, _text(_DIMENSION_NAME, "rows"))
    shape += _part(_SHAPE_DIMENSION, _number(_DIMENSION_VALUE, classes))
    tensor = _number(_TENSOR_ELEMENT, _ELEMENTS[dtype]) + _part(_TENSOR_SHAPE, shape)
    output = _text(_VALUE_NAME, "probabilities") + _part(_VALUE_TYPE, _part(_TYPE_TENSOR, tensor))
    return _part(_MODEL_GRAPH, _part(_GRAPH_NODE, node) + _part(_GRAPH_OUTPUT, output))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _part(field, value.encode())


def _part(field: int, contents: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(contents)) + contents


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
