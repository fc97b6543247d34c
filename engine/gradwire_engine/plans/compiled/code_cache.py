"""Where compiled code is kept on disk, so that a machine compiles once."""

import hashlib
import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from gradwire_engine.backend import processor_model


@cache
def folder() -> Path:
    """Return a folder of this user's own for code of this version on this kind of processor.

    It is in GRADWIRE_CACHE, else XDG_CACHE_HOME or ~/.cache, else, where none can be written, in a temporary folder.
    Numba unpickles what it finds there, so a folder that another user could write to is not taken.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    given = os.environ.get("GRADWIRE_CACHE")
    for base in (
        [Path(given)] if given else [Path(home, "gradwire"), Path(tempfile.gettempdir(), f"gradwire-{os.getuid()}")]
    ):
        wanted = base / f"compiled-{_digest()}"
        try:
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if _only_ours(base) and _only_ours(wanted) and os.access(wanted, os.W_OK):
            return wanted
    return Path(tempfile.mkdtemp(prefix="gradwire-compiled-"))


def _only_ours(path: Path) -> bool:
    found = path.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _digest() -> str:
    """Name the code and the processor. Numba itself looks only at the file of a function, not at what that one uses."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    for fact in (version("numba"), version("llvmlite"), platform.python_version(), processor_model()):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def compiling() -> Iterator[None]:
    """Let the functions that are made in this block be kept in `folder`; the user's own functions stay as they are."""
    import numba  # noqa: PLC0415  (an extra)

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
