"""The base class of the server's interceptors, which wrap the behavior of each method of gradwire's services."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServicerContext

UnaryBehavior = Callable[[Any, ServicerContext[Any, Any]], Awaitable[Any]]
StreamBehavior = Callable[[Any, ServicerContext[Any, Any]], AsyncIterator[Any]]

# Standard services are not wrapped, because health probes do not send a token, and the protocol is public.
_PUBLIC_METHODS = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps behaviors: `wrap_unary` if they return one response, and `wrap_stream` if they return a stream."""

    def wrap_unary(self, behavior: UnaryBehavior) -> UnaryBehavior:
        """Return a behavior that calls `behavior`."""
        raise NotImplementedError

    def wrap_stream(self, behavior: StreamBehavior) -> StreamBehavior:
        """Return a behavior that calls `behavior`."""
        raise NotImplementedError

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a call, with a wrapped behavior."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_PUBLIC_METHODS):
            return handler
        make, behavior = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[handler.request_streaming, handler.response_streaming]
        wrapped: Any = (self.wrap_stream if handler.response_streaming else self.wrap_unary)(behavior)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)
