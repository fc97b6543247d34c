"""Accepts HTTP connections, runs them with uvicorn's HTTP/1.1 protocol, and limits the resources of each connection."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gradwire_server.http.grpc_refusal import PREFACE, GrpcRefusal
from gradwire_server.http.pace import Pace
from gradwire_server.limits import (
    MAX_HANDSHAKE_SECONDS,
    MAX_HTTP_HEAD_BYTES,
    MAX_HTTP_IDLE_SECONDS,
    MAX_HTTP_WRITE_SECONDS,
)

# The time that responses have to finish when the server shuts down.
_GRACE_SECONDS = 2.0
_ACCEPT_RETRY_SECONDS = 0.2
_PREFACE_START = PREFACE[:14]


class HttpServer:
    """Serves an ASGI application on a listening socket, in the event loop of the server.

    Args:
        app: The application.
        listener: The socket, which must already be bound.
        tls: The certificate, or None without TLS.
        max_connections: The maximum number of open connections. Further connections are closed immediately.
        grpc_hint: The error message for gRPC clients that connect to this port.
        pace: The pace at which bodies arrive.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        *,
        max_connections: int,
        grpc_hint: str,
        pace: Pace,
    ) -> None:
        # Failed requests are answered, not logged. Only bugs are logged.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=MAX_HTTP_IDLE_SECONDS,
            h11_max_incomplete_event_size=MAX_HTTP_HEAD_BYTES,
        )
        self._config.load()
        self._listener = listener
        self._tls = tls
        self._max_connections = max_connections
        self._grpc_hint = grpc_hint
        self._pace = pace
        self._state = ServerState()
        self._open: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start accepting connections."""
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    async def stop(self) -> None:
        """Stop accepting connections, give responses a short time to finish, and close all connections."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        self._listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=_GRACE_SECONDS)
        for task in (*self._state.tasks, *self._open):
            task.cancel()
        await asyncio.gather(*self._state.tasks, *self._open, return_exceptions=True)
        for connection in list(self._state.connections):
            connection.transport.abort()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:  # No file descriptor is free, or the client has disconnected.
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            if len(self._open) >= self._max_connections:
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Run a connection until it is closed."""
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()

        def new_protocol() -> Connection:
            return Connection(self._config, self._state, lost.set, self._grpc_hint, self._pace)

        handshake_seconds = None if self._tls is None else MAX_HANDSHAKE_SECONDS
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                new_protocol, connection, ssl=self._tls, ssl_handshake_timeout=handshake_seconds
            )
        except OSError:  # The TLS handshake failed, or the client has disconnected.
            return
        await lost.wait()


class Connection(H11Protocol):
    """A connection of a client.

    The connection is closed if the headers of a request take too long to arrive, or if the client takes too long to
    receive the response. gRPC clients get a message that names the right port.

    Args:
        config: The configuration of uvicorn.
        state: The connections and tasks of the server.
        on_lost: A function that is called when the connection is closed.
        grpc_hint: The error message for gRPC clients.
        pace: The pace at which the rest of an answered request arrives.
    """

    def __init__(
        self, config: uvicorn.Config, state: ServerState, on_lost: Callable[[], None], grpc_hint: str, pace: Pace
    ) -> None:
        super().__init__(config, state, {})
        self._on_lost = on_lost
        self._pace = pace
        self._grpc_hint = grpc_hint
        self._refusal: GrpcRefusal | None = None
        self._is_new = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(MAX_HANDSHAKE_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of a request, or of a gRPC client."""
        if self._is_new and data.startswith(_PREFACE_START):
            self._refusal = GrpcRefusal(self._grpc_hint)
        self._is_new = False
        if self._refusal is not None:
            reply = self._refusal.receive(data)
            if reply is None:
                self.transport.abort()
            else:
                self.transport.write(reply)
            return
        super().data_received(data)
        self._wait_for_head()
        if self._is_answered_early() and not self.transport.is_closing():
            self.transport.pause_reading()
            self._pace.received(len(data), self._resume)

    def _is_answered_early(self) -> bool:
        """Whether a request was answered before it has fully arrived."""
        return self.conn.their_state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete

    def _resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def on_response_complete(self) -> None:
        """Wait for the rest of a request that was answered before it had fully arrived, or for the next request."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        """Limit the time until the headers of a request, or the rest of an answered request, have arrived."""
        if self.conn.their_state is not h11.IDLE and not self._is_answered_early():
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(MAX_HANDSHAKE_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Start waiting for the client to receive what was sent."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(MAX_HTTP_WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Continue sending."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
