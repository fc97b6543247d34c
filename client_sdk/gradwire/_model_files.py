"""Saves, loads and downloads model files."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from gradwire._exceptions import (
    DataLossError,
    FileError,
    GradwireError,
    InvalidArgumentError,
    OutOfRangeError,
    TraceError,
)
from gradwire._paths import in_existing_folder, to_path
from gradwire._transport import Transport
from gradwire._types import ModelFormat, TransferProgress
from gradwire_engine.backend import Array
from gradwire_engine.module import Module, Sequential
from gradwire_engine.spec import files
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_engine.spec.tracing import packed_weights
from gradwire_engine.symbol import TraceError as EngineTraceError
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


def save(model: Module, path: str | Path) -> Path:
    """Write a model to a .safetensors or .npz file, as `model.save` does.

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
    with _errors_of_the_sdk():
        return files.save_model(model, to_path(path))


def checked_model_path(path: str | Path) -> Path:
    """Return a path after checking that `save` can write to it.

    Raises:
        FileError: The path does not end in .safetensors or .npz, or the folder does not exist.
    """
    path = to_path(path)
    with _errors_of_the_sdk():
        files.check_path(path)
    return path


def load_model(path: str | Path) -> Sequential:
    """Read a .safetensors or .npz file that `save` or a server wrote, as `Module.load` does.

    Args:
        path: The path of the file.

    Returns:
        A Sequential with the same layers and names, rebuilt from the file. The original model's class is not needed.

    Raises:
        FileError: The file cannot be read, or is not a gradwire model.
    """
    with _errors_of_the_sdk():
        return files.load_model(to_path(path))


@contextmanager
def _errors_of_the_sdk() -> Iterator[None]:
    """Convert the engine's errors to those of the SDK."""
    try:
        yield
    except GradwireError:
        raise
    except files.ModelFileError as error:
        raise FileError(str(error)) from None
    except EngineTraceError as error:
        raise TraceError(str(error)) from None
    except ValueError as error:
        raise InvalidArgumentError(str(error)) from None


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
    return packed_weights(load(bytes(data)), spec)


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
            with _errors_of_the_sdk():
                parts, spec = files.read_safetensors(part)
            files.write_parts(converted, parts, spec or "")
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
