"""Exports models to safetensors and ONNX files for other programs."""

from dataclasses import dataclass

import onnx
from google.protobuf.json_format import MessageToJson
from onnx import helper, numpy_helper
from safetensors.numpy import save

from gradwire_engine.backend import Array
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tracing import unpacked_weights
from gradwire_proto.v1.model_service_pb2 import Model

# These are the oldest versions with all required features, so that old runtimes can read the files.
_ONNX_OPSET = 17
_ONNX_IR = 8


@dataclass(frozen=True)
class ModelFile:
    """The name and bytes of a file."""

    name: str
    data: bytes


def safetensors_file(model: Model, weights: Array) -> ModelFile:
    """Return a safetensors file with "<layer>.W" and "<layer>.b". Its metadata contains the spec of the model."""
    spec = MessageToJson(model.spec, indent=None, preserving_proto_field_name=True)
    # There is only one metadata entry, because safetensors writes several entries in random order. To continue an
    # interrupted download, a client needs the same bytes.
    metadata = {"gradwire.model_spec": spec}
    tensors = unpacked_weights(weights, model.spec, network(model.spec))
    return ModelFile(f"{_stem(model)}.safetensors", save(tensors, metadata=metadata))


def onnx_file(model: Model, weights: Array) -> ModelFile:
    """Return an ONNX file with Gemm and Relu nodes from "inputs" (rows, features) to "outputs" (rows, outputs)."""
    net = network(model.spec)
    parts = unpacked_weights(weights, model.spec, net)
    element = helper.np_dtype_to_tensor_dtype(weights.dtype)
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
    graph = helper.make_graph(
        nodes,
        _stem(model),
        [helper.make_tensor_value_info("inputs", element, ["rows", net.in_features])],
        [helper.make_tensor_value_info("outputs", element, ["rows", net.out_features])],
        [numpy_helper.from_array(array, name) for name, array in parts.items()],
    )
    file = helper.make_model(graph, producer_name="gradwire", opset_imports=[helper.make_opsetid("", _ONNX_OPSET)])
    file.ir_version = _ONNX_IR
    onnx.checker.check_model(file)
    return ModelFile(f"{_stem(model)}.onnx", file.SerializeToString())


def _stem(model: Model) -> str:
    return model.name.removeprefix("models/")
