"""The server's interceptor, which processes each call before and after the service's method.

A call is authenticated by its metadata and counted before its request is received. The request is received within the
limits of its method, checked and parsed. Exceptions become statuses.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from gradwire_server.api.authentication import Authenticator
from gradwire_server.api.call_end import close_later
from gradwire_server.api.call_limits import CallCount, RequestReader, Turns, read_next, write
from gradwire_server.api.error_mapping import abort
from gradwire_server.api.request_fields import REQUEST, check_fields, malformed_request
from gradwire_server.errors import DomainError, TooSlowError, invalid_field
from gradwire_server.limits import (
    DEFAULT_LIMITS,
    LONG_REQUEST_BYTES,
    MAX_CONCURRENT_CALLS,
    MAX_CONCURRENT_HEALTH_CHECKS,
    MAX_CONCURRENT_HEALTH_WATCHES,
    MAX_CONCURRENT_REFLECTIONS,
    MAX_SLOW_PUBLIC_REQUESTS,
    MAX_SLOW_REQUESTS,
    METHOD_LIMITS,
    PUBLIC_LIMITS,
    REFLECTION_LIMITS,
    SLOW_PUBLIC_REQUEST_SECONDS,
    SLOW_REQUEST_SECONDS,
    STATUS_SECONDS,
    MethodLimits,
)
from gradwire_server.threads import in_thread

Context = ServicerContext[Any, Any]

# Standard services. Health probes do not send a token, and the protocol is public.
_HEALTH, _REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection."


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._calls = CallCount(MAX_CONCURRENT_CALLS)
        self._reader = RequestReader(MAX_SLOW_REQUESTS, SLOW_REQUEST_SECONDS)
        self._health_checks = _Public(PUBLIC_LIMITS, MAX_CONCURRENT_HEALTH_CHECKS)
        self._health_watches = _Public(PUBLIC_LIMITS, MAX_CONCURRENT_HEALTH_WATCHES)
        self._reflections = _Public(REFLECTION_LIMITS, MAX_CONCURRENT_REFLECTIONS)
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the wrapped handler of a method, or a handler that rejects the call without receiving its request."""
        method = handler_call_details.method
        if not method.startswith((_HEALTH, _REFLECTION)):
            try:
                self._authenticator.authenticate(handler_call_details.invocation_metadata)
            except DomainError as error:
                return _refusal(error)
        handler = self._handlers.get(method)
        if handler is None:
            found = await continuation(handler_call_details)
            if found is None or not _is_implemented(found):
                return None
            handler = self._handlers[method] = self._method(method, found).handler()
        return handler

    def _method(self, path: str, handler: Any) -> "_Method":
        if path.startswith(_REFLECTION):
            return self._reflections.method(handler)
        if path.startswith(_HEALTH):
            return (self._health_watches if handler.response_streaming else self._health_checks).method(handler)
        service, _, name = path[1:].partition("/")
        request = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").input_type
        limits = METHOD_LIMITS.get(name, DEFAULT_LIMITS)
        turns = Turns(name, limits.concurrent_calls) if limits.concurrent_calls else None
        return _Method(handler, limits, request, self._calls, self._reader, turns)


class _Public:
    """Methods of the standard services, which do not require a token, with their shared limits."""

    def __init__(self, limits: MethodLimits, maximum: int) -> None:
        self._limits = limits
        self._calls = CallCount(maximum)
        self._reader = RequestReader(MAX_SLOW_PUBLIC_REQUESTS, SLOW_PUBLIC_REQUEST_SECONDS)

    def method(self, handler: Any) -> "_Method":
        """Return one of these methods with its handler."""
        return _Method(handler, self._limits, None, self._calls, self._reader)


class _Method:
    """A method of a service with its limits.

    Args:
        handler: The handler of the service.
        limits: The limits.
        request: The type of its requests, whose fields are checked, or None to skip the check.
        calls: Counts its calls.
        reader: Receives its requests.
        turns: Limits its concurrent calls. None means no limit.
    """

    def __init__(
        self,
        handler: Any,
        limits: MethodLimits,
        request: Descriptor | None,
        calls: CallCount,
        reader: RequestReader,
        turns: Turns | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._request = request
        self._calls = calls
        self._reader = reader
        self._turns = turns

    def handler(self) -> Any:
        """Return the handler for gRPC.

        Every method is registered with a stream of requests. For methods with a single request, gRPC would receive the
        request, regardless of its size, before it calls the handler. Without a deserializer, gRPC leaves the parsing to
        this class.
        """
        if self._handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream, None, self._handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(self._unary, None, None)

    async def _unary(self, _requests: object, context: Context) -> bytes | None:
        try:
            async with self._admitted() as held:
                # Only the encoded response stays in memory while the client receives it.
                encoded = await self._encode(await self._respond(context))
                held.enter_context(self._calls.response(len(encoded)))
                return encoded
        except Exception as error:
            await abort(context, error)
            return None

    async def _encode(self, response: Any) -> bytes:
        encode: Callable[[Any], bytes] = self._handler.response_serializer
        return await in_thread(encode, response) if self._limits.long_response else encode(response)

    async def _respond(self, context: Context) -> Any:
        if self._handler.request_streaming:
            return await self._handler.stream_unary(self._stream_of_requests(context), context)
        return await self._handler.unary_unary(await self._only_request(context), context)

    async def _stream(self, _requests: object, context: Context) -> None:
        try:
            async with self._admitted():
                await self._send_responses(context)
        except Exception as error:
            await abort(context, error)

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[ExitStack]:
        """Count a call, wait for its turn, and hold both until the client has received the response.

        If the client does not receive it in time, the call is closed. Yields the stack that holds them.

        Raises:
            ServerBusyError: There are too many calls.
        """
        with ExitStack() as held:
            held.enter_context(self._calls.call())
            if self._turns is not None:
                held.enter_context(await self._turns.turn())
            try:
                yield held
            except TooSlowError:
                close_later(STATUS_SECONDS, held.pop_all().close)
                raise
            close_later(self._limits.write_seconds, held.pop_all().close)

    async def _send_responses(self, context: Context) -> None:
        if self._handler.request_streaming:
            behavior, request = self._handler.stream_stream, self._stream_of_requests(context)
        else:
            behavior, request = self._handler.unary_stream, await self._only_request(context)
        if not inspect.isasyncgenfunction(behavior):
            await behavior(request, context)
            return
        async with aclosing(behavior(request, context)) as responses:
            async for response in responses:
                await write(context, response, self._limits.write_seconds)

    async def _only_request(self, context: Context) -> Any:
        data = await self._reader.read(context, self._limits.read_seconds)
        if data is None:
            raise malformed_request()
        self._check_size(data)
        if len(data) > LONG_REQUEST_BYTES:
            await in_thread(self._check_fields, data)
        else:
            self._check_fields(data)
        return self._parsed(data)

    async def _stream_of_requests(self, context: Context) -> AsyncIterator[Any]:
        while (data := await read_next(context, self._limits.read_seconds)) is not None:
            self._check_size(data)
            self._check_fields(data)
            yield self._parsed(data)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self._limits.message_bytes:
            raise invalid_field(REQUEST, f"has {len(data)} bytes, more than the {self._limits.message_bytes} allowed")

    def _check_fields(self, data: bytes) -> None:
        if self._request is not None:
            check_fields(data, self._request)

    def _parsed(self, data: bytes) -> Any:
        try:
            return self._handler.request_deserializer(data)
        except DecodeError:
            raise malformed_request() from None


def _is_implemented(handler: Any) -> bool:
    """Whether the service has the method. In the base classes that gRPC generates, methods are not async."""
    behaviors = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in behaviors)


def _refusal(error: DomainError) -> Any:
    """Return a handler that ends a call with an error. It takes a stream, so it does not receive the request."""

    async def refuse(_requests: object, context: Context) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refuse, None, None)
