"""Reads data files for the command line: .npz, .safetensors and .csv."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from gradwire._exceptions import FileError, InvalidArgumentError
from gradwire_engine.backend import Array
from gradwire_engine.spec.validation import counted


@dataclass(frozen=True)
class DataFile:
    """A training set and, if the file contains one, a test set. Each set is a pair (inputs, targets)."""

    train: tuple[Array, Array]
    test: tuple[Array, Array] | None


def read_data(path: Path, target: str | None) -> DataFile:
    """Read a data file. The suffix determines the format.

    Args:
        path: A .npz or .safetensors file that contains the arrays x_train and y_train and, optionally, x_test and
            y_test, or a .csv file with a header.
        target: The column that contains the targets in a .csv file.

    Raises:
        FileError: The file cannot be used.
    """
    if path.suffix == ".csv":
        return _read_csv(path, target)
    if path.suffix not in (".npz", ".safetensors"):
        raise FileError(f"{path} must end in .npz, .safetensors or .csv")
    if target is not None:
        raise FileError(
            "--target is for .csv files. Other files name their arrays x_train, y_train, x_test and y_test."
        )
    arrays = _read_arrays(path)
    for name in ("x_train", "y_train"):
        if name not in arrays:
            raise FileError(f"{path} has no array {name}. It has {_listed(arrays)}.")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise FileError(f"{path} must have both x_test and y_test, or neither")
    test = (_flattened(arrays["x_test"]), arrays["y_test"]) if "x_test" in arrays else None
    return DataFile((_flattened(arrays["x_train"]), arrays["y_train"]), test)


def read_inputs(path: Path, drop: Sequence[str] = ()) -> Array:
    """Read the inputs for a prediction.

    Args:
        path: A .npy file, a .csv file of numbers, with or without a header, or a .npz or .safetensors file that
            contains the array x or x_test.
        drop: The columns of a .csv file to omit. Without a header, these are numbers from 1.

    Raises:
        FileError: The file cannot be used.
    """
    if path.suffix == ".csv":
        return _drop(_read_table(path, drop), drop)
    if drop:
        raise FileError("--drop is for .csv files")
    if path.suffix == ".npy":
        try:
            return _flattened(np.load(path, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise FileError(f"cannot read {path}: {_cause(error)}") from None
    if path.suffix not in (".npz", ".safetensors"):
        raise FileError(f"{path} must end in .npy, .npz, .safetensors or .csv")
    arrays = _read_arrays(path)
    for name in ("x", "x_test"):
        if name in arrays:
            return _flattened(arrays[name])
    raise FileError(f"{path} has no array x or x_test. It has {_listed(arrays)}.")


def scaled(inputs: Array, scale: float) -> Array:
    """Return inputs multiplied by --scale.

    Raises:
        InvalidArgumentError: The factor is infinite or NaN.
    """
    if not math.isfinite(scale):
        raise InvalidArgumentError(f"--scale must be a finite number, got {scale}")
    return inputs if scale == 1.0 else inputs * scale


def _read_arrays(path: Path) -> dict[str, Array]:
    try:
        if path.suffix == ".safetensors":
            loaded: dict[str, Array] = load_file(str(path))
            return loaded
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, SafetensorError) as error:
        raise FileError(f"cannot read {path}: {_cause(error)}") from None


def _cause(error: Exception) -> str:
    """Return the reason why a file cannot be read. NumPy's own message would suggest unpickling the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "allow_pickle" in str(error) or "pickle" in str(error):
        return "it contains Python objects or is damaged. Save plain arrays of numbers."
    return str(error)


def _listed(arrays: dict[str, Array]) -> str:
    return ", ".join(arrays) or "none"


def _flattened(array: Array) -> Array:
    """Reshape images to rows."""
    return array.reshape(len(array), -1) if array.ndim > 2 else array


@dataclass(frozen=True)
class _Table:
    """The cells of a .csv file.

    Attributes:
        path: The file.
        header: The first line, or None if it contains numbers and is therefore a row.
        rows: The cells of the other lines that are not blank.
        lines: The line number of each row in the file.
    """

    path: Path
    header: list[str] | None
    rows: list[list[str]]
    lines: list[int]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, or their numbers from 1 if there is no header."""
        return self.header or [str(number) for number in range(1, len(self.rows[0]) + 1)]

    def check_unique(self, column: str) -> None:
        """Raise an error if several columns have this name."""
        if self.columns.count(column) > 1:
            raise FileError(f"{self.path} has several columns with the name {column!r}. Rename all but one of them.")

    def place(self, row: int, column: str) -> str:
        """Return the place of a cell, for an error message."""
        return f"{self.path}, line {self.lines[row]}, column {column}"


def _read_csv(path: Path, target: str | None) -> DataFile:
    table = _read_table(path, [] if target is None else [target])
    if table.header is None:
        raise FileError(f"{path} has no header. Its first line must name the columns, for --target.")
    if target is None or target not in table.header:
        given = "none was given" if target is None else f"got {target!r}"
        raise FileError(f"--target must name a column of {path}, one of {', '.join(table.header)}; {given}")
    table.check_unique(target)
    return DataFile((_numbers(table, without=[target]), _targets(table, target)), None)


def _targets(table: _Table, target: str) -> Array:
    """Return the cells of a column as numbers, or as text if some of them are not numbers."""
    column = (table.header or []).index(target)
    cells = [row[column].strip() for row in table.rows]
    if "" in cells:
        raise FileError(f"{table.place(cells.index(''), target)}: is empty. Give each row a target.")
    if not all(_is_number(cell) for cell in cells):
        return np.array(cells)
    targets = np.array(cells, dtype=np.float64)
    is_whole = bool(np.all(targets == np.round(targets))) and not any("." in cell for cell in cells)
    return targets.astype(np.int64) if is_whole else targets


def _drop(table: _Table, drop: Sequence[str]) -> Array:
    for name in drop:
        if name not in table.columns:
            numbers = "" if table.header else ". It has no header, so use the number of a column, from 1"
            raise FileError(f"--drop must name a column of {table.path}, got {name!r}{numbers}")
        table.check_unique(name)
    try:
        return _numbers(table, without=drop)
    except _CellError as error:
        raise FileError(f"{error}. To leave a column out, use --drop.") from None


def _read_table(path: Path, named: Sequence[str]) -> _Table:
    """Read a .csv file.

    Args:
        path: The file.
        named: The columns that the user names. If the first line contains one of them, it is a header, even if its
            other cells are numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            numbered = [(row, reader.line_num) for row in reader if row]
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FileError(f"cannot read {path}: it is not UTF-8 text. Save it as UTF-8.") from None
    except csv.Error as error:
        raise FileError(f"cannot read {path}: {error}") from None
    if not numbered:
        raise FileError(f"{path} is empty")
    first = numbered[0][0]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(first) == 1 and separator in first[0]:
            raise FileError(f"{path} separates its cells by {name}. Save it with commas.")
    is_named = any(name in first and not _is_number(name) for name in named)
    header = numbered.pop(0)[0] if is_named or not any(_is_number(cell) for cell in first) else None
    return _Table(path, header, [row for row, _ in numbered], [line for _, line in numbered])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _CellError(FileError):
    """A cell is not a number."""


def _numbers(table: _Table, without: Sequence[str] = ()) -> Array:
    """Convert cells to float64. If a cell is not a number, the error contains its line and column.

    `without` contains the columns to leave out.
    """
    if not table.rows:
        raise FileError(f"{table.path} has no rows")
    names = table.columns
    for row, line in zip(table.rows, table.lines, strict=True):
        if len(row) != len(names):
            raise FileError(
                f"{table.path}, line {line}: has {counted(len(row), 'cell')}, but the first line has {len(names)}"
            )
    kept = [column for column, name in enumerate(names) if name not in without]
    if not kept:
        raise FileError(f"{table.path} has no columns besides {', '.join(without)}")
    try:
        numbers = np.array([[row[column] for column in kept] for row in table.rows], dtype=np.float64)
    except ValueError:
        numbers = np.array([[np.nan]])
    if np.isfinite(numbers).all():
        return numbers
    index, column = next(
        (index, column)
        for index, row in enumerate(table.rows)
        for column in kept
        if not (_is_number(row[column]) and math.isfinite(float(row[column])))
    )
    raise _CellError(f"{table.place(index, names[column])}: {_trouble(table.rows[index][column])}")


def _trouble(cell: str) -> str:
    if not cell.strip():
        return "is empty"
    return f"{cell!r} is {'infinite or NaN' if _is_number(cell) else 'not a number'}"
