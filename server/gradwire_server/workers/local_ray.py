"""Keeps a server's own Ray instance private: its address, its token and its folder.

This module does not import Ray, because Ray reads the environment when it is imported.
"""

import secrets
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from gradwire_server.private_files import can_hold_socket, create_private, make_private

# The longest path of a socket below Ray's folder: /session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store
_LONGEST_SOCKET = "x" * len("session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
_TOKEN_BYTES = 32


def prepare_environment(environment: MutableMapping[str, str], data: Path) -> None:
    """Set the variables that Ray reads when it is imported. `local_ray` later creates the token.

    Args:
        environment: The environment of this process.
        data: The data folder of the server.
    """
    environment["RAY_AUTH_MODE"] = "token"
    environment["RAY_AUTH_TOKEN_PATH"] = str(_token_file(data))
    # This variable would take precedence over the file.
    environment.pop("RAY_AUTH_TOKEN", None)
    # Ray then uses the loopback address as the address of this node. Despite its name, the variable applies to Linux
    # too.
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


@contextmanager
def local_ray(data: Path) -> Iterator[Path]:
    """Create a token, and a folder for Ray's files that only this user can access. Yields the folder.

    The folder is in the data folder. If Ray cannot use it, because the path is too long for sockets or not ASCII, it is
    a temporary folder, which is deleted at the end of the context.

    Args:
        data: The data folder, whose lock this server holds.
    """
    token = _token_file(data)
    token.unlink(missing_ok=True)
    create_private(token, secrets.token_hex(_TOKEN_BYTES))
    # Ray repeatedly makes its folder accessible to all users, so that folder is inside a private one.
    private = data.resolve() / "ray"
    shutil.rmtree(private, ignore_errors=True)  # The folder contains the logs of the last run.
    # Ray encodes the path of its folder as ASCII.
    if str(private).isascii() and _can_hold_sockets(private / "r"):
        yield private / "r"
        return
    shutil.rmtree(private, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="gradwire-ray-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary, "r")


def _token_file(data: Path) -> Path:
    return data.resolve() / "ray-token"


def _can_hold_sockets(folder: Path) -> bool:
    """Whether the folder can be created, and the paths of sockets in it are short enough."""
    try:
        make_private(folder.parent)
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return can_hold_socket(folder / _LONGEST_SOCKET)
