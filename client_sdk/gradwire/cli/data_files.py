"""Data files of the command line: .npz, .safetensors and .csv."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gradwire._exceptions import GradwireError
from gradwire_engine.backend import Array


class DataFileError(GradwireError, ValueError):
    """A data file that cannot be used; the message says why."""


@dataclass(frozen=True)
class DataFile:
    """A training set, and a test set if the file has one: pairs (inputs, targets)."""

    train: tuple[Array, Array]
    test: tuple[Array, Array] | None


def read_data(path: Path, target: str | None) -> DataFile:
    """Read a file by its suffix. `target` is the column with the targets, for .csv."""
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix == ".csv":
        return _read_csv(path, target)
    if path.suffix not in readers:
        raise DataFileError(f"{path} must end in .npz, .safetensors or .csv")
    if target is not None:
        raise DataFileError(
            "--target is for .csv files; other files name their arrays x_train, y_train, x_test, y_test"
        )
    try:
        arrays = readers[path.suffix](path)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataFileError(f"cannot read {path}: {error}") from error
    for name in ("x_train", "y_train"):
        if name not in arrays:
            raise DataFileError(f"{path} has no array {name}; it has {', '.join(arrays) or 'none'}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataFileError(f"{path} must have both x_test and y_test, or neither")
    test = (arrays["x_test"], arrays["y_test"]) if "x_test" in arrays else None
    return DataFile((_flattened(arrays["x_train"]), arrays["y_train"]), test and (_flattened(test[0]), test[1]))


def read_inputs(path: Path) -> Array:
    """Read inputs to predict on: .npy, .csv of numbers, or the array x, or x_test, of an .npz file."""
    try:
        if path.suffix == ".npy":
            return _flattened(np.load(path, allow_pickle=False))
        if path.suffix == ".csv":
            return _numbers(path, *_read_table(path))
        arrays = _read_npz(path)
    except (OSError, ValueError) as error:
        raise DataFileError(f"cannot read {path}: {error}") from error
    for name in ("x", "x_test"):
        if name in arrays:
            return _flattened(arrays[name])
    raise DataFileError(f"{path} has no array x or x_test; it has {', '.join(arrays) or 'none'}")


def _flattened(array: Array) -> Array:
    """Images become rows."""
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _read_npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: Path) -> dict[str, Array]:
    loaded: dict[str, Array] = load_file(str(path))
    return loaded


def _read_csv(path: Path, target: str | None) -> DataFile:
    try:
        header, rows = _read_table(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"cannot read {path}: {error}") from error
    if target is None or target not in header:
        given = "none was given" if target is None else f"got {target!r}"
        raise DataFileError(f"--target must name a column of {path}, one of {', '.join(header)}; {given}")
    table = _numbers(path, header, rows)
    column = header.index(target)
    targets: Any = table[:, column]
    if np.all(targets == np.round(targets)) and all("." not in row[column] for row in rows):
        targets = targets.astype(np.int64)
    return DataFile((np.delete(table, column, axis=1), targets), None)


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    return header, rows


def _numbers(path: Path, header: list[str], rows: list[list[str]]) -> Array:
    """Convert cells to float64; the error names line and column of the first that is not a number."""
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DataFileError(f"{path}, line {line}: has {len(row)} cells, but the header has {len(header)}")
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
    except ValueError:
        for line, row in enumerate(rows, start=2):
            for name, cell in zip(header, row, strict=True):
                try:
                    float(cell)
                except ValueError as error:
                    raise DataFileError(f"{path}, line {line}, column {name}: {cell!r} is not a number") from error
        raise
