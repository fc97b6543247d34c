"""The Unix socket between the gateway and the gRPC server. Only the server's user can access it."""

import tempfile
from pathlib import Path

from gradwire_server.private_files import can_hold_socket, make_private

_NAME = "grpc.sock"


class PrivateSocket:
    """A path for a socket in a folder with mode 0700.

    The folder is in the data folder. If the path of the socket would be too long there, it is a temporary folder.

    Args:
        data: The data folder of the server.
    """

    def __init__(self, data: Path) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.path = data.resolve() / "http" / _NAME
        make_private(self.path.parent)
        if not can_hold_socket(self.path):
            self._temporary = tempfile.TemporaryDirectory(prefix="gradwire-", dir="/tmp")
            self.path = Path(self._temporary.name, _NAME)

    def close(self) -> None:
        """Delete the socket."""
        self.path.unlink(missing_ok=True)
        if self._temporary is not None:
            self._temporary.cleanup()
