"""The HTTP gateway, which is a gRPC client of the server and runs in the server's process.

URLs, JSON and errors follow the Connect protocol: https://connectrpc.com/docs/protocol/. A single handler translates
the calls of all methods. Everything else happens in the gRPC server.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gradwire_server.http.calls import GrpcClient, Metadata, Method, RequestBuffer, methods_of
from gradwire_server.http.connections import HttpServer
from gradwire_server.http.errors import CallError, invalid_request, too_slow
from gradwire_server.http.guard import Guard
from gradwire_server.http.json_messages import from_json, to_json
from gradwire_server.http.pace import Pace
from gradwire_server.http.page import Page
from gradwire_server.http.private_socket import PrivateSocket
from gradwire_server.http.streams import MAX_INLINE_BYTES, stream_response
from gradwire_server.limits import HTTP_JSON_SLACK_BYTES, MAX_REQUEST_BYTES
from gradwire_server.settings import Settings, SettingsError
from gradwire_server.threads import in_thread

_JSON, _PROTO = "application/json", "application/proto"
_BACKLOG = 512
_MAX_PORT = 65_535


class HttpGateway:
    """Listens on the HTTP port.

    Args:
        settings: The settings of the server.
        grpc_address: The "host:port" of the gRPC server.
        services: The full names of the services that can be called.
        max_connections: The maximum number of open connections.

    Attributes:
        socket: The path of the Unix socket on which the gRPC server must listen.
        url: The address of the page.

    Raises:
        SettingsError: The port is in use.
    """

    def __init__(self, settings: Settings, grpc_address: str, services: Sequence[str], max_connections: int) -> None:
        grpc_port = int(grpc_address.rpartition(":")[2])
        self._listener = _listen(settings, grpc_port)
        port = self._listener.getsockname()[1]
        self._private_socket = PrivateSocket(settings.data)
        self.socket = str(self._private_socket.path)
        scheme = "http" if settings.key_and_chain is None else "https"
        self.url = f"{scheme}://{_shown_host(settings)}:{port}"
        self._methods = methods_of(services)
        self._buffer = RequestBuffer()
        self._pace = Pace()
        self._client: GrpcClient | None = None
        self._page = Page(grpc_port)
        hint = (
            f"port {port} is the HTTP port of this gradwire server. gRPC clients, such as the Python client, use port "
            f"{grpc_port}"
        )
        app = Guard(self._app(), _hosts(settings))
        self._server = HttpServer(
            app,
            self._listener,
            _tls(settings),
            max_connections=max_connections,
            grpc_hint=hint,
            pace=self._pace,
        )

    def start(self) -> None:
        """Start accepting connections. The gRPC server must already be running."""
        self._private_socket.path.chmod(0o600)
        self._client = GrpcClient(self.socket)
        self._server.start()

    async def stop(self) -> None:
        """Give responses a short time to finish, and close everything."""
        await self._server.stop()
        if self._client is not None:
            await self._client.close()
        self._private_socket.close()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page.serve, methods=["GET"]),
                Route("/static/{path:path}", self._page.serve, methods=["GET"]),
                Route("/{service}/{method}", self._unary, methods=["POST"]),
                Route("/{service}/{method}", self._stream, methods=["GET"]),
            ],
            exception_handlers={CallError: _failed, HTTPException: _not_routed, ClientDisconnect: _gone},
        )

    async def _unary(self, request: Request) -> Response:
        method = self._method(request)
        if method.request_streaming or method.response_streaming:
            how = "takes a stream. Use gRPC" if method.request_streaming else "returns a stream. Use GET"
            raise CallError("unimplemented", f"{method.path} {how}")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in (_JSON, _PROTO):
            raise CallError("unknown", f"send the request as content-type {_JSON} or {_PROTO}", status=415)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise CallError("unimplemented", "send the request without content-encoding", status=415)
        length = request.headers.get("content-length", "")
        response = await self._grpc().unary(
            method,
            _metadata(request),
            lambda: self._receive(request, method, media_type),
            is_large=not (length.isdecimal() and int(length) <= MAX_REQUEST_BYTES),
            seconds=_seconds(request),
        )
        if media_type == _PROTO:
            return Response(response, media_type=_PROTO)
        if len(response) <= MAX_INLINE_BYTES:
            return Response(to_json(response, method.response), media_type=_JSON)
        return Response(await in_thread(to_json, response, method.response), media_type=_JSON)

    async def _stream(self, request: Request) -> Response:
        method = self._method(request)
        if not method.response_streaming or method.request_streaming:
            raise CallError(
                "unimplemented", f"{method.path} does not only return a stream. Use POST or gRPC", status=405
            )
        return await stream_response(self._grpc(), method, _metadata(request), request)

    def _method(self, request: Request) -> Method:
        method = self._methods.get(request.url.path)
        if method is None:
            raise CallError("unimplemented", "this server has no such method", status=404)
        return method

    def _grpc(self) -> GrpcClient:
        assert self._client is not None
        return self._client

    async def _receive(self, request: Request, method: Method, media_type: str) -> bytes:
        """Receive the request of a call, and return it as an encoded message."""
        limit = method.limits.message_bytes
        if media_type == _JSON:
            limit = limit * 4 // 3 + HTTP_JSON_SLACK_BYTES  # In JSON, bytes are base64, and fields have names.
        with self._buffer.part() as add:
            body = bytearray()
            try:
                async with asyncio.timeout(method.limits.read_seconds):
                    async for chunk in request.stream():
                        add(len(chunk))
                        body += chunk
                        if len(body) > limit:
                            raise invalid_request(f"has more than the {limit} bytes allowed")
                        if len(body) > MAX_INLINE_BYTES:  # Small requests do not wait for large ones.
                            await self._pace.wait(len(chunk))
            except TimeoutError:
                raise too_slow("the request did not arrive in time") from None
            if media_type == _PROTO:
                return bytes(body)
            if len(body) <= MAX_INLINE_BYTES:
                return from_json(bytes(body), method.request)
            return await in_thread(from_json, bytes(body), method.request)


async def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, CallError)
    return error.response()


async def _not_routed(_request: Request, error: Exception) -> Response:
    """Answer a path or an HTTP method that does not exist."""
    assert isinstance(error, HTTPException)
    return CallError("unimplemented", f"there is nothing here: {error.detail}", status=error.status_code).response()


async def _gone(_request: Request, _error: Exception) -> Response:
    """End a request whose client has disconnected. Nobody receives this response."""
    return CallError("canceled", "the client has gone").response()


def _metadata(request: Request) -> Metadata:
    """Return the caller's token as metadata. The server does not need any other headers."""
    values = request.headers.getlist("authorization")
    return [("authorization", value.encode("ascii", "replace").decode()) for value in values]


def _seconds(request: Request) -> float | None:
    text = request.headers.get("connect-timeout-ms", "")
    return int(text) / 1000 if text.isdecimal() and len(text) <= 10 else None


def _listen(settings: Settings, grpc_port: int) -> socket.socket:
    """Return a listening socket on the HTTP port. If the default port is in use, use any free port."""
    candidates = [settings.http_port or 0]
    if settings.http_port is None:
        candidates = [grpc_port + 1, 0] if settings.port and grpc_port < _MAX_PORT else [0]
    for port in candidates:
        try:
            return _bind(settings.host, port)
        except OSError as error:
            failure = error
    raise SettingsError(
        f"cannot listen on {settings.host}:{candidates[0]} for HTTP: {failure.strerror or failure}. Choose another "
        "--http-port (0: no HTTP)"
    ) from failure


def _bind(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A browser tries all addresses of a name.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def _hosts(settings: Settings) -> set[str]:
    return {"localhost", socket.gethostname(), settings.host, settings.publish, *settings.http_hosts} - {""}


def _shown_host(settings: Settings) -> str:
    if settings.host in ("0.0.0.0", "::"):  # noqa: S104  (compares, does not listen)
        return "localhost"
    return f"[{settings.host}]" if ":" in settings.host else settings.host
