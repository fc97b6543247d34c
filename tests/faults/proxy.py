"""A TCP proxy between client and server that can cut connections or silently drop their data."""

import contextlib
import socket
import threading


class Proxy:
    """Forwards a free port to a target. `cut` breaks all connections, and `swallow` drops their data for good."""

    def __init__(self) -> None:
        self._target: tuple[str, int] | None = None
        self._swallowing = threading.Event()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def point_to(self, address: str) -> None:
        """Forward new connections to another server."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))

    def cut(self) -> None:
        """Break all connections. New connections are still accepted."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def swallow(self, on: bool) -> None:
        """Keep connections open but drop all data from now on, or forward the data of new connections again."""
        (self._swallowing.set if on else self._swallowing.clear)()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target, 2)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._pairs.add((client, server))
                # TCP never loses bytes in the middle, so a connection that has lost some forwards nothing after them.
                lost = threading.Event()
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, sink, lost), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._swallowing.is_set():
                    lost.set()
                if not lost.is_set():
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
