"""The cache folder for compiled code, so that each machine compiles the code only once."""

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

# Compiled code depends on all modules in this package, and on codes.py.
_SOURCES = (*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[1] / "codes.py")


@cache
def folder() -> Path:
    """Return the cache folder for this version of the code and this kind of processor.

    If GRADWIRE_CACHE is set, the cache folder is inside the folder that it names. Otherwise, it is in XDG_CACHE_HOME or
    ~/.cache or, if those are not writable, in the folder for temporary files. Numba unpickles the cached files, so this
    function never returns a folder that other users can write to.
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
    """Return a digest of the code, library versions and processor. Numba itself checks only a function's own file."""
    digest = hashlib.sha256()
    for source in _SOURCES:
        digest.update(source.read_bytes())
    for fact in (version("numba"), version("llvmlite"), platform.python_version(), processor_model()):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def compiling() -> Iterator[None]:
    """Cache functions compiled within this context in `folder`. The user's own functions are not affected."""
    import numba  # noqa: PLC0415  (an extra)

    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
