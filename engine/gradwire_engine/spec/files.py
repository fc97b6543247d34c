"""Writes and reads model files, .safetensors and .npz. A file also contains the model's spec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tracing import packed_weights, trace, unpacked_weights
from gradwire_proto.v1.spec_pb2 import ModelSpec

if TYPE_CHECKING:
    from gradwire_engine.module import Module, Sequential

SPEC_KEY = "gradwire.model_spec"


class ModelFileError(ValueError):
    """A model file cannot be read or written."""


def save_model(model: Module, path: Path) -> Path:
    """Write a model to a .safetensors or .npz file, and return the path.

    Raises:
        ModelFileError: The path has a different suffix, or the file cannot be written.
        TraceError: The model is not a stack of Linear and ReLU layers.
        ValueError: A layer has no weights yet.
    """
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  (slow to import)

    check_path(path)
    traced = trace(model)
    for layer, message in zip(traced.layers, traced.spec.layers, strict=True):
        if message.HasField("linear") and message.linear.in_features == 0:
            raise ValueError(f"layer {message.name!r}, {layer!r}, has no weights yet. Train the model first.")
    weights = traced.given_weights()
    assert weights is not None, "every layer has its weights"
    spec = MessageToJson(traced.spec, indent=None, preserving_proto_field_name=True)
    try:
        write_parts(path, unpacked_weights(weights, traced.spec, network(traced.spec)), spec)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from None
    return path


def check_path(path: Path) -> None:
    """Check that `save_model` can write to a path.

    Raises:
        ModelFileError: The path does not end in .safetensors or .npz, or the folder does not exist.
    """
    if path.suffix not in (".safetensors", ".npz"):
        raise ModelFileError(
            f"cannot write {path}: a model is saved as .safetensors or .npz. To get an .onnx file of a model on a "
            'server, use client.models.download(name, "model.onnx").'
        )
    if not path.parent.is_dir():
        raise ModelFileError(f"cannot write {path}: the folder {path.parent} does not exist. Create it first.")


def write_parts(path: Path, parts: dict[str, Array], spec: str) -> None:
    """Write the parameters of a model and its spec, as JSON, to a .safetensors or .npz file."""
    from safetensors.numpy import save as to_bytes  # noqa: PLC0415  (slow to import)

    if path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **parts, **{SPEC_KEY: np.array(spec)})  # type: ignore[arg-type]  # not allow_pickle
    else:
        path.write_bytes(to_bytes(parts, metadata={SPEC_KEY: spec}))


def load_model(path: Path) -> Sequential:
    """Read a file that `save_model` or a server wrote, and rebuild the model from the spec in it.

    Raises:
        ModelFileError: The file cannot be read, or is not a gradwire model.
    """
    from google.protobuf.json_format import Parse  # noqa: PLC0415  (slow to import)
    from google.protobuf.json_format import ParseError as SpecError  # noqa: PLC0415

    parts, spec_text = _read_npz(path) if path.suffix == ".npz" else read_safetensors(path)
    if spec_text is None:
        raise ModelFileError(f"{path} is not a gradwire model: it has no {SPEC_KEY}")
    try:
        spec = Parse(spec_text, ModelSpec())
        return build(spec, packed_weights(parts, spec))
    except (SpecError, KeyError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged: {error}") from None


def read_safetensors(path: Path) -> tuple[dict[str, Array], str | None]:
    """Return the arrays of a .safetensors file, and the spec of the model as JSON, or None if there is no spec.

    Raises:
        ModelFileError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  (slow to import)

    if path.is_dir():
        raise ModelFileError(f"cannot read {path}: it is a folder")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError:
        raise ModelFileError(f"cannot read {path}: it is not a .safetensors file, or it is damaged") from None
    except FileNotFoundError:  # The error of safe_open has no strerror.
        raise ModelFileError(f"cannot read {path}: there is no such file") from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None
    return parts, metadata.get(SPEC_KEY)


def _read_npz(path: Path) -> tuple[dict[str, Array], str | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = dict(file)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, BadZipFile):  # TypeError: it is an .npy file.
        raise ModelFileError(f"cannot read {path}: it is not an .npz file, or it is damaged") from None
    spec = parts.pop(SPEC_KEY, None)
    return parts, None if spec is None else str(spec)
