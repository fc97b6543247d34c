"""An unreliable network: a TCP proxy that cuts connections after a number of bytes."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

_FIRST_CUT_BYTES = 8 << 10
# A connection stalls before it is cut, as on a real network. This gives the server time to store the received bytes.
_STALL_SECONDS = 0.1


class BreakingNetwork:
    """Forwards connections to a server, and cuts each connection after a number of bytes.

    The limit counts the bytes in both directions. It doubles after each cut, so that a client that reconnects and
    continues can finish.

    Args:
        target: The "host:port" of the server.

    Attributes:
        address: The "host:port" for clients.
        cuts: The number of connections that were cut.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._bytes_until_cut = _FIRST_CUT_BYTES
        self.address = f"localhost:{self._listener.getsockname()[1]}"
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        # close() alone does not wake the accepting thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # The listener is closed.
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                connection = _Connection(self, client, server)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=connection.forward, args=ends, daemon=True).start()

    def allowed_bytes(self, carried: int, size: int) -> int:
        """Return how many of the next `size` bytes to forward, and count a cut if they are fewer than `size`."""
        with self._lock:
            if carried + size <= self._bytes_until_cut:
                return size
            allowed = max(self._bytes_until_cut - carried, 0)
            self._bytes_until_cut *= 2
            self.cuts += 1
            return allowed


class _Connection:
    """A connection with two directions, which are closed together."""

    def __init__(self, network: BreakingNetwork, *ends: socket.socket) -> None:
        self._network = network
        self._ends = ends
        self._carried = 0
        self._is_cut = False
        self._lock = threading.Lock()

    def forward(self, source: socket.socket, target: socket.socket) -> None:
        """Forward one direction until the connection ends or is cut."""
        with contextlib.suppress(OSError):  # The other direction has closed the sockets.
            while data := source.recv(1 << 16):
                with self._lock:
                    allowed = 0 if self._is_cut else self._network.allowed_bytes(self._carried, len(data))
                    self._carried += allowed
                    self._is_cut = allowed < len(data)
                target.sendall(data[:allowed])
                if self._is_cut:
                    time.sleep(_STALL_SECONDS)
                    break
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
