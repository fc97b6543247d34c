"""Folders and files that only the user that runs the server can read."""

import logging
import os
import socket
import stat
from pathlib import Path

_log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_private(file: Path, text: str) -> None:
    """Create a file that only this user can read. Raises FileExistsError if it exists."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def make_private(folder: Path) -> None:
    """Create a folder. If it exists and other users can access it, remove their permissions from it and its contents.

    Files and folders of other users are not changed, for example a mounted folder whose owner has set its permissions.
    A folder with the sticky bit is not changed either, because it is shared on purpose.

    Raises:
        OSError: The folder cannot be created.
    """
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    found = folder.stat()
    if not found.st_mode & _OTHERS:
        return  # Other users cannot access its contents.
    if found.st_mode & stat.S_ISVTX:
        _log.warning("all users can create files in %s. Choose a folder that only this user can write to", folder)
        return
    # Restrict the folder first, so that no other user can replace its files with links.
    _tighten(folder)
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            _tighten(Path(path, name))


def can_hold_socket(path: Path) -> bool:
    """Whether a Unix socket can be created at a path, which may be too long. An existing socket is deleted."""
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _tighten(path: Path) -> None:
    try:
        found = path.lstat()
        if found.st_uid == os.getuid() and not stat.S_ISLNK(found.st_mode):
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    except FileNotFoundError:
        return  # A temporary file was deleted.
