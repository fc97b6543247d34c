"""Model files: fetched from a server, written and read as safetensors. A file holds its spec, so it stands alone."""

import hashlib
from pathlib import Path

import numpy as np
from google.protobuf.json_format import MessageToJson, Parse
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save_file

from gradwire._exceptions import DataLossError, GradwireError, InvalidArgumentError
from gradwire._transport import Transport
from gradwire_engine.backend import Array
from gradwire_engine.module import Module
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_engine.spec.tracing import trace, unpacked_weights
from gradwire_proto.v1.model_service_pb2 import DownloadModelRequest, GetModelRequest, Model, ModelFormat
from gradwire_proto.v1.spec_pb2 import ModelSpec

FORMATS = {"safetensors": ModelFormat.MODEL_FORMAT_SAFETENSORS, "onnx": ModelFormat.MODEL_FORMAT_ONNX}

_SPEC_KEY = "gradwire.model_spec"


async def fetch_file(transport: Transport, name: str, format_: str) -> tuple[str, bytes]:
    """Download the model "models/{id}"; its file name and bytes, checked against their digest."""
    if format_ not in FORMATS:
        raise InvalidArgumentError(f"format must be one of {', '.join(FORMATS)}, got {format_!r}")
    header = None
    parts: list[bytes] = []
    request = DownloadModelRequest(name=name, format=FORMATS[format_])
    async for response in transport.receive(transport.models.DownloadModel, request):
        if response.WhichOneof("part") == "header":
            header = response.header
        else:
            parts.append(response.chunk)
    data = b"".join(parts)
    if header is None or hashlib.sha256(data).hexdigest() != header.sha256:
        raise DataLossError(f"the file of {name} arrived damaged; download it again")
    return header.file_name, data


async def fetch_model(transport: Transport, name: str) -> tuple[Model, Array]:
    """Download the model "models/{id}": its message, and the flat vector of its weights, checked by its digest."""
    model = await transport.call(transport.models.GetModel, GetModelRequest(name=name))
    _, data = await fetch_file(transport, name, "safetensors")
    weights = _flat(load(data), model.spec)
    if hashlib.sha256(wire_bytes(weights)).hexdigest() != model.weights.sha256:
        raise DataLossError(f"the weights of {name} arrived damaged; download them again")
    return model, weights


def save(model: Module, path: str | Path) -> Path:
    """Write a model, all of whose layers have their weights, to a .safetensors file that `load_model` reads."""
    traced = trace(model)
    for layer, message in zip(traced.layers, traced.spec.layers, strict=True):
        if message.WhichOneof("kind") == "linear" and message.linear.in_features == 0:
            raise InvalidArgumentError(f"layer {message.name!r}, {layer!r}, has no weights yet: train the model first")
    weights = traced.given_weights()
    assert weights is not None, "every layer has its weights"
    spec = MessageToJson(traced.spec, indent=None, preserving_proto_field_name=True)
    save_file(unpacked_weights(weights, traced.spec, network(traced.spec)), str(path), metadata={_SPEC_KEY: spec})
    return Path(path)


def load_model(path: str | Path) -> Module:
    """Read a .safetensors file that `save` or a server has written, as a Module with the same layers and names."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise GradwireError(f"cannot read {path}: {error}") from error
    if _SPEC_KEY not in metadata:
        raise GradwireError(f"{path} is not a gradwire model: its metadata has no {_SPEC_KEY}")
    spec = Parse(metadata[_SPEC_KEY], ModelSpec())
    return build(spec, _flat(parts, spec))


def _flat(parts: dict[str, Array], spec: ModelSpec) -> Array:
    names = [layer.name for layer in spec.layers if layer.WhichOneof("kind") == "linear"]
    return np.concatenate([parts[f"{name}.{which}"].ravel() for name in names for which in ("W", "b")])
