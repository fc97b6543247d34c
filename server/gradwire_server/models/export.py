"""Exports models as files for other programs: safetensors and ONNX.

A file is never held in memory as a whole: its weights are read from the blob while it is sent.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.json_format import MessageToJson
from onnx import TensorProto, helper

from gradwire_engine.spec.resolve import linear_layers, network
from gradwire_engine.spec.tensors import numpy_dtype
from gradwire_proto.v1.model_service_pb2 import Model

# These are the oldest versions with all required features, so that old runtimes can read the files.
_ONNX_OPSET = 17
_ONNX_IR = 8
_BLOCK_BYTES = 1 << 20

# Bytes of the file, or the positions of bytes in the weights.
Part = bytes | range


@dataclass(frozen=True)
class ModelFile:
    """A file that consists of parts.

    Attributes:
        name: The name of the file.
        weights: The file with the weights of the model.
        parts: The contents, in order.
    """

    name: str
    weights: Path
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return sum(map(len, self.parts))

    @property
    def identity(self) -> tuple[Path, bytes]:
        """The weights, and the digest of the other bytes, which determine where the weights are in the file."""
        digest = hashlib.sha256()
        for part in self.parts:
            if isinstance(part, bytes):
                digest.update(part)
        return self.weights, digest.digest()

    def blocks(self, offset: int = 0) -> Iterator[bytes]:
        """Read the file from an offset in blocks of 1 MiB. Blocks."""
        block = bytearray()
        with self.weights.open("rb") as file:
            for part in self.parts:
                skipped = min(offset, len(part))
                offset -= skipped
                rest = part[skipped:]
                while rest:
                    piece, rest = rest[: _BLOCK_BYTES - len(block)], rest[_BLOCK_BYTES - len(block) :]
                    if isinstance(piece, range):
                        file.seek(piece.start)
                        piece = file.read(len(piece))
                    block += piece
                    if len(block) == _BLOCK_BYTES:
                        yield bytes(block)
                        block.clear()
        if block:
            yield bytes(block)


def safetensors_file(model: Model, weights: Path) -> ModelFile:
    """Return a safetensors file with "<layer>.W" and "<layer>.b". Its metadata contains the spec, so it is complete.

    The format: https://github.com/huggingface/safetensors#format. The header is written here, because the library
    needs all tensors in memory.
    """
    spec = MessageToJson(model.spec, indent=None, preserving_proto_field_name=True)
    dtype = numpy_dtype(model.weights.dtype)
    header: dict[str, object] = {"__metadata__": {"gradwire.model_spec": spec}}
    position = 0
    parts = sorted(_tensors(model), key=lambda tensor: tensor.name)
    for each in parts:
        end = position + len(each.place)
        header[each.name] = {
            "dtype": f"F{dtype.itemsize * 8}",
            "shape": each.shape,
            "data_offsets": [position, end],
        }
        position = end
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    start = len(encoded).to_bytes(8, "little") + encoded
    return ModelFile(f"{_stem(model)}.safetensors", weights, (start, *(each.place for each in parts)))


def onnx_file(model: Model, weights: Path) -> ModelFile:
    """Return an ONNX file with Gemm and Relu nodes from "inputs" (rows, features) to "outputs" (rows, outputs).

    An ONNX file is a ModelProto, whose encoding is assembled here, because the weights are not in memory.
    """
    net = network(model.spec)
    element = helper.np_dtype_to_tensor_dtype(numpy_dtype(model.weights.dtype))
    before = onnx.GraphProto(node=_nodes(model), name=_stem(model)).SerializeToString()
    after = onnx.GraphProto(
        input=[helper.make_tensor_value_info("inputs", element, ["rows", net.in_features])],
        output=[helper.make_tensor_value_info("outputs", element, ["rows", net.out_features])],
    ).SerializeToString()
    initializers: list[Part] = []
    for each in _tensors(model):
        start = TensorProto(dims=each.shape, data_type=element, name=each.name).SerializeToString()
        start += _field_start(TensorProto, "raw_data", len(each.place))
        initializers += [_field_start(onnx.GraphProto, "initializer", len(start) + len(each.place)) + start, each.place]
    graph = [before, *initializers, after]
    start = onnx.ModelProto(ir_version=_ONNX_IR, producer_name="gradwire").SerializeToString()
    start += _field_start(onnx.ModelProto, "graph", sum(map(len, graph)))
    end = onnx.ModelProto(opset_import=[helper.make_opsetid("", _ONNX_OPSET)]).SerializeToString()
    return ModelFile(f"{_stem(model)}.onnx", weights, (start, *graph, end))


@dataclass(frozen=True)
class _WeightTensor:
    """A tensor of a model: its name, its shape, and the positions of its bytes in the file with the weights."""

    name: str
    shape: list[int]
    place: range


def _tensors(model: Model) -> Iterator[_WeightTensor]:
    """Yield W and b of each Linear, in the order of the flat vector: W row by row, then b."""
    item = numpy_dtype(model.weights.dtype).itemsize
    for layer, place in zip(linear_layers(model.spec), network(model.spec).layers, strict=True):
        start = place.offset * item
        middle = start + place.in_features * place.out_features * item
        end = start + place.size * item
        yield _WeightTensor(f"{layer.name}.W", [place.out_features, place.in_features], range(start, middle))
        yield _WeightTensor(f"{layer.name}.b", [place.out_features], range(middle, end))


def _nodes(model: Model) -> list[onnx.NodeProto]:
    nodes = []
    current = "inputs"
    for position, layer in enumerate(model.spec.layers):
        result = "outputs" if position == len(model.spec.layers) - 1 else f"{layer.name}.output"
        if layer.HasField("linear"):
            arguments = [current, f"{layer.name}.W", f"{layer.name}.b"]
            nodes.append(helper.make_node("Gemm", arguments, [result], name=layer.name, transB=1))
        else:
            nodes.append(helper.make_node("Relu", [current], [result], name=layer.name))
        current = result
    return nodes


def _field_start(message: type[onnx.ModelProto | onnx.GraphProto | TensorProto], name: str, size: int) -> bytes:
    """Return the encoding of a field's number and size. The contents of the field follow it."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    encoded = bytearray([number << 3 | 2])
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*encoded, size])


def _stem(model: Model) -> str:
    return model.name.removeprefix("models/")
