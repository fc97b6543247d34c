"""Calls the gRPC server for HTTP clients. The server authenticates, checks and limits each call like any other call."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from gradwire_server.budget import Budget
from gradwire_server.http.errors import CallError, busy, from_rpc
from gradwire_server.limits import (
    DEFAULT_LIMITS,
    MAX_HTTP_BUFFERED_BYTES,
    MAX_HTTP_CALL_SECONDS,
    MAX_HTTP_CALLS,
    MAX_HTTP_STREAMS,
    METHOD_LIMITS,
    MethodLimits,
)

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Method:
    """A method of a service.

    Attributes:
        path: Its path, for example "/gradwire.v1.TrainingService/GetJob".
        request: The type of its requests.
        response: The type of its responses.
        request_streaming: Whether it takes a stream.
        response_streaming: Whether it returns a stream.
        limits: The server's limits for this method.
    """

    path: str
    request: type[Message]
    response: type[Message]
    request_streaming: bool
    response_streaming: bool
    limits: MethodLimits


def methods_of(services: Sequence[str]) -> Mapping[str, Method]:
    """Return the methods of services, by their paths."""
    found = {}
    for service in services:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            path = f"/{service}/{method.name}"
            found[path] = Method(
                path,
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
                method.client_streaming,
                method.server_streaming,
                METHOD_LIMITS.get(method.name, DEFAULT_LIMITS),
            )
    return found


class GrpcClient:
    """A client of the server in the same process.

    Args:
        socket: The path of the Unix socket on which the server listens.
    """

    def __init__(self, socket: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"unix:{socket}",
            [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self._calls = Budget(MAX_HTTP_CALLS, lambda: _too_many(MAX_HTTP_CALLS, "calls"))
        self._streams = Budget(MAX_HTTP_STREAMS, lambda: _too_many(MAX_HTTP_STREAMS, "streams"))

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def unary(
        self,
        method: Method,
        metadata: Metadata,
        receive: Callable[[], Awaitable[bytes]],
        *,
        is_large: bool,
        seconds: float | None,
    ) -> bytes:
        """Make a call that returns one message.

        Args:
            method: The method.
            metadata: The metadata of the call.
            receive: A function that receives the encoded request.
            is_large: Whether the request can be large. The gateway then receives it only while the server accepts the
                call.
            seconds: How long the call may take, or None for the default.

        Returns:
            The encoded response.

        Raises:
            CallError: The call failed.
        """
        with self._calls.taken():
            request = await (self._receive_large(method, metadata, receive) if is_large else receive())
            timeout = min(seconds or MAX_HTTP_CALL_SECONDS, MAX_HTTP_CALL_SECONDS)
            # Without serializers, gRPC takes and returns bytes.
            call: Any = self._channel.unary_unary(method.path)
            try:
                response: bytes = await call(request, metadata=metadata, timeout=timeout)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error) from None
            return response

    async def _receive_large(
        self, method: Method, metadata: Metadata, receive: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """Receive a request while a call of its method is open that has not sent its request.

        The server ends that call if the token is wrong, if the request takes too long, or if too many other requests
        are arriving. This way, no client can make the gateway hold a large request that the server would not have
        received.
        """
        call: Any = self._channel.stream_unary(method.path)(metadata=metadata)
        receiving = asyncio.ensure_future(receive())
        ended = asyncio.ensure_future(call.code())
        try:
            await asyncio.wait((receiving, ended), return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result()
            await call
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        finally:
            call.cancel()
            for task in (receiving, ended):
                task.cancel()
            await asyncio.gather(receiving, ended, return_exceptions=True)
        raise busy("the server ended the call before its request had arrived")

    @asynccontextmanager
    async def stream(self, method: Method, metadata: Metadata, request: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """Make a call that returns a stream. Yields the encoded responses, which raise CallError if the call fails."""
        with self._streams.taken():
            start: Any = self._channel.unary_stream(method.path)
            call = start(request, metadata=metadata)
            try:
                yield _responses(call)
            finally:
                call.cancel()


async def _responses(call: Any) -> AsyncIterator[bytes]:
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None


def _too_many(maximum: int, what: str) -> CallError:
    return busy(f"the gateway has {maximum} {what} in progress, which is the maximum")


class RequestBuffer:
    """Counts the bytes of all requests in memory, and rejects requests that would exceed the maximum."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextmanager
    def part(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts the bytes of one request as they arrive, while the context lasts."""
        held = 0

        def add(size: int) -> None:
            nonlocal held
            if self._bytes + size > MAX_HTTP_BUFFERED_BYTES:
                raise busy(f"the gateway holds {MAX_HTTP_BUFFERED_BYTES >> 20} MiB of requests, which is the maximum")
            held += size
            self._bytes += size

        try:
            yield add
        finally:
            self._bytes -= held
