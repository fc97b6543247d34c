"""Checks the paths of files that are written."""

from pathlib import Path

from gradwire._exceptions import FileError, InvalidArgumentError


def to_path(path: str | Path) -> Path:
    """Return a Path. Raises InvalidArgumentError if the argument is neither text nor a path."""
    try:
        return Path(path)
    except TypeError:
        raise InvalidArgumentError(f"path: must be text or a Path, got {path!r}") from None


def in_existing_folder(path: Path) -> Path:
    """Return a path.

    Raises:
        FileError: Its folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileError(f"cannot write {path}: the folder {path.parent} does not exist. Create it first.")
    return path
