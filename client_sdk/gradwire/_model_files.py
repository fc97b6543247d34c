"""Saves, loads and downloads model files. A safetensors file also contains the model's spec."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal, get_args
from zipfile import BadZipFile

import numpy as np

from gradwire._exceptions import (
    DataLossError,
    FileError,
    GradwireError,
    InvalidArgumentError,
    OutOfRangeError,
)
from gradwire._paths import in_existing_folder, to_path
from gradwire._transport import Transport
from gradwire._types import ModelFormat, TransferProgress
from gradwire_engine.backend import Array
from gradwire_engine.module import Module
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import linear_layers, network
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_proto.v1 import model_service_pb2
from gradwire_proto.v1.model_service_pb2 import (
    DownloadModelRequest,
    DownloadModelResponse,
    FileHeader,
    GetModelRequest,
    Model,
)
from gradwire_proto.v1.spec_pb2 import ModelSpec
from gradwire_proto.v1.training_service_pb2 import DownloadCheckpointRequest, DownloadCheckpointResponse

_FORMATS = {
    "safetensors": model_service_pb2.ModelFormat.MODEL_FORMAT_SAFETENSORS,
    "onnx": model_service_pb2.ModelFormat.MODEL_FORMAT_ONNX,
}
SPEC_KEY = "gradwire.model_spec"


def save(model: Module, path: str | Path) -> Path:
    """Write a model to a .safetensors or .npz file, which `load_model` can read.

    Both contain the arrays "fc1.W" and "fc1.b" for a layer fc1. You can read an .npz file with NumPy alone:
    numpy.load(path).

    Args:
        model: A model whose layers all have weights.
        path: The path of the file, which must end in .safetensors or .npz.

    Returns:
        The path.

    Raises:
        InvalidArgumentError: A layer has no weights yet.
        FileError: The path has a different suffix, or the file cannot be written.
        TraceError: The model is not a stack of Linear and ReLU layers.
    """
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  (slow to import)

    from gradwire._job_request import trace_model  # noqa: PLC0415
    from gradwire_engine.spec.tracing import unpacked_weights  # noqa: PLC0415

    path = checked_model_path(path)
    traced = trace_model(model)
    for layer, message in zip(traced.layers, traced.spec.layers, strict=True):
        if message.HasField("linear") and message.linear.in_features == 0:
            raise InvalidArgumentError(f"layer {message.name!r}, {layer!r}, has no weights yet. Train the model first.")
    weights = traced.given_weights()
    assert weights is not None, "every layer has its weights"
    spec = MessageToJson(traced.spec, indent=None, preserving_proto_field_name=True)
    parts = unpacked_weights(weights, traced.spec, network(traced.spec))
    try:
        write_parts(path, parts, spec)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from None
    return path


def write_parts(path: Path, parts: dict[str, Array], spec: str) -> None:
    """Write the parameters of a model and its spec, as JSON, to a .safetensors or .npz file."""
    from safetensors.numpy import save as to_bytes  # noqa: PLC0415  (slow to import)

    if path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **parts, **{SPEC_KEY: np.array(spec)})  # type: ignore[arg-type]  # not allow_pickle
    else:
        path.write_bytes(to_bytes(parts, metadata={SPEC_KEY: spec}))


def checked_model_path(path: str | Path) -> Path:
    """Return a path after checking that `save` can write to it.

    Raises:
        FileError: The path does not end in .safetensors or .npz, or the folder does not exist.
    """
    path = to_path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise FileError(
            f"cannot write {path}: a model is saved as .safetensors or .npz. To get an .onnx file of a model on a "
            'server, use client.models.download(name, "model.onnx").'
        )
    return in_existing_folder(path)


def load_model(path: str | Path) -> Module:
    """Read a .safetensors or .npz file that `save` or a server wrote.

    Args:
        path: The path of the file.

    Returns:
        A Module with the same layers and names, rebuilt from the spec in the file. The original model's class is
        not needed.

    Raises:
        FileError: The file cannot be read, or is not a gradwire model.
    """
    from google.protobuf.json_format import Parse  # noqa: PLC0415  (slow to import)
    from google.protobuf.json_format import ParseError as SpecError  # noqa: PLC0415

    path = to_path(path)
    parts, spec_text = _npz_parts(path) if path.suffix == ".npz" else read_safetensors(path)
    if spec_text is None:
        raise FileError(f"{path} is not a gradwire model: it has no {SPEC_KEY}")
    try:
        spec = Parse(spec_text, ModelSpec())
        return build(spec, _flat(parts, spec))
    except (SpecError, KeyError, ValueError) as error:
        raise FileError(f"{path} is damaged: {error}") from None


def read_safetensors(path: Path) -> tuple[dict[str, Array], str | None]:
    """Return the arrays of a .safetensors file, and the spec of the model as JSON, or None if there is no spec.

    Raises:
        FileError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  (slow to import)

    if path.is_dir():
        raise FileError(f"cannot read {path}: it is a folder")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError:
        raise FileError(f"cannot read {path}: it is not a .safetensors file, or it is damaged") from None
    except FileNotFoundError:  # The error of safe_open has no strerror.
        raise FileError(f"cannot read {path}: there is no such file") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    return parts, metadata.get(SPEC_KEY)


def _npz_parts(path: Path) -> tuple[dict[str, Array], str | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = dict(file)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, BadZipFile):  # TypeError: it is an .npy file.
        raise FileError(f"cannot read {path}: it is not an .npz file, or it is damaged") from None
    spec = parts.pop(SPEC_KEY, None)
    return parts, None if spec is None else str(spec)


async def fetch_model(transport: Transport, name: str, epoch: int = 0) -> tuple[Model, Array]:
    """Download the model "models/{id}".

    Args:
        transport: The connection.
        name: The model.
        epoch: A kept epoch of its job, or 0 for the model itself.

    Returns:
        The model's message, and the flat weight vector, verified against its digest.
    """
    model = await transport.call(transport.models.GetModel, GetModelRequest(name=name, epoch=epoch))
    weights = await fetch_weights(transport, name, model.spec, epoch)
    if hashlib.sha256(wire_bytes(weights)).hexdigest() != model.weights.sha256:
        raise DataLossError(f"the weights of {name.partition('/')[2]!r} arrived damaged. Download them again.")
    return model, weights


async def fetch_weights(transport: Transport, name: str, spec: ModelSpec, epoch: int = 0) -> Array:
    """Download the weights of a model or of the last checkpoint of a job as a flat vector.

    Args:
        transport: The connection.
        name: "models/{id}" or "jobs/{id}".
        spec: The model.
        epoch: A kept epoch of the model's job, or 0 for the model itself.
    """
    from safetensors.numpy import load  # noqa: PLC0415  (slow to import)

    data = bytearray()
    await _receive(transport, name, "safetensors", data.extend, epoch)
    return _flat(load(bytes(data)), spec)


async def download_file(
    transport: Transport,
    name: str,
    path: str | Path,
    format_: ModelFormat | None,
    epoch: int = 0,
    *,
    on_progress: TransferProgress | None = None,
    extra: bytes = b"",
) -> Path:
    """Download a model to a file and return the path. An incomplete file has a temporary name.

    Args:
        transport: The connection.
        name: "models/{id}", or "jobs/{id}" for the last checkpoint of a job.
        path: The file or folder that the user gave.
        format_: The format that the user gave.
        epoch: A kept epoch of the job of a model, or 0 for the model itself.
        on_progress: A function that is called with (received_bytes, total_bytes) after each chunk.
        extra: Bytes to write after the received ones.
    """
    target, format_ = resolve_target(to_path(path), f"{name}-epoch-{epoch}" if epoch else name, format_)
    part = target.with_name(f"{target.name}.part")
    converted = target.with_name(f"{target.name}.part.npz")
    try:
        with part.open("wb") as file:
            sent: Literal["safetensors", "onnx"] = "onnx" if format_ == "onnx" else "safetensors"
            await _receive(transport, name, sent, file.write, epoch, on_progress)
            file.write(extra)
        if format_ == "npz":  # The server does not offer this format.
            parts, spec = read_safetensors(part)
            write_parts(converted, parts, spec or "")
            converted.replace(target)
        else:
            part.replace(target)
    except OSError as error:
        if isinstance(error, GradwireError):
            raise
        raise FileError(f"cannot write {target}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
        converted.unlink(missing_ok=True)
    return target


def resolve_target(path: Path, name: str, format_: ModelFormat | None) -> tuple[Path, ModelFormat]:
    """Return the file to write and its format, based on the path and the format that the user specified."""
    if format_ is not None and format_ not in get_args(ModelFormat):
        raise InvalidArgumentError(f"format: must be one of {', '.join(get_args(ModelFormat))}, got {format_!r}")
    if path.is_dir():
        format_ = format_ or "safetensors"
        return path / f"{name.partition('/')[2]}.{format_}", format_
    by_suffix: dict[str, ModelFormat] = {f".{each}": each for each in get_args(ModelFormat)}
    of_suffix = by_suffix.get(path.suffix)
    if format_ is not None and of_suffix not in (None, format_):
        raise FileError(f"cannot write {path}: the suffix does not match format={format_!r}")
    chosen = format_ or of_suffix
    if chosen is None:
        raise FileError(
            f"cannot write {path}: use a file name that ends in .safetensors, .npz or .onnx, or pass format=..."
        )
    return in_existing_folder(path), chosen


async def _receive(
    transport: Transport,
    name: str,
    format_: Literal["safetensors", "onnx"],
    write: Callable[[bytes], object],
    epoch: int = 0,
    on_progress: TransferProgress | None = None,
) -> None:
    """Receive the file of a model or a checkpoint and check its digest. Reconnect and continue if necessary."""
    header: FileHeader | None = None
    digest, offset, attempt = hashlib.sha256(), 0, 0
    while True:
        try:
            async for response in _parts(transport, name, _FORMATS[format_], offset, epoch):
                if response.HasField("header"):
                    if header is not None and header.sha256 != response.header.sha256:
                        raise DataLossError(
                            f"the file of {name.partition('/')[2]!r} changed during the download. Download it again."
                        )
                    header = response.header
                    continue
                attempt = 0
                write(response.chunk)
                digest.update(response.chunk)
                offset += len(response.chunk)
                if on_progress is not None and header is not None:
                    on_progress(offset, header.size_bytes)
            break
        except OutOfRangeError:
            raise DataLossError(
                f"the file of {name.partition('/')[2]!r} changed during the download. Download it again."
            ) from None
        except GradwireError as error:
            await transport.wait_before_retry(error, attempt)
            attempt += 1
    if header is None or digest.hexdigest() != header.sha256:
        raise DataLossError(f"the file of {name.partition('/')[2]!r} arrived damaged. Download it again.")


def _parts(
    transport: Transport, name: str, format_: model_service_pb2.ModelFormat, offset: int, epoch: int
) -> AsyncIterator[DownloadModelResponse | DownloadCheckpointResponse]:
    if name.startswith("jobs/"):
        request = DownloadCheckpointRequest(name=name, format=format_, offset=offset)
        return transport.receive(transport.training.DownloadCheckpoint, request)
    return transport.receive(
        transport.models.DownloadModel, DownloadModelRequest(name=name, format=format_, offset=offset, epoch=epoch)
    )


def _flat(parts: dict[str, Array], spec: ModelSpec) -> Array:
    names = [layer.name for layer in linear_layers(spec)]
    return np.concatenate([parts[f"{name}.{which}"].ravel() for name in names for which in ("W", "b")])
