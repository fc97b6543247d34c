"""The door of every call: checks the token, and turns every exception into a status with details."""

import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc.aio import ServicerContext

from gradwire_server.api.unknown_fields import refuse_unknown_fields
from gradwire_server.errors import ServiceError, internal, unauthenticated

_log = logging.getLogger(__name__)

# Probes of the machine's health carry no token, and what the messages look like is no secret.
_OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class Door(grpc.aio.ServerInterceptor):
    """Lets calls in that carry the token, where there is one."""

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token else None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN_TO_ALL):
            return handler
        make, behavior = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }[handler.request_streaming, handler.response_streaming]
        guarded: Any = (self._guard_stream if handler.response_streaming else self._guard_unary)(behavior)
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _guard_unary(self, behavior: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(request: Any, context: ServicerContext[Any, Any]) -> Any:
            try:
                self._authenticate(context)
                _check(request)
                return await behavior(request, context)
            except Exception as error:
                await _abort(context, error)

        return guarded

    def _guard_stream(self, behavior: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def guarded(request: Any, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                self._authenticate(context)
                _check(request)
                async for response in behavior(request, context):
                    yield response
            except Exception as error:
                await _abort(context, error)

        return guarded

    def _authenticate(self, context: ServicerContext[Any, Any]) -> None:
        if self._expected is None:
            return
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("authorization", "")
        if not hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._expected):
            raise unauthenticated(
                "this server wants a token: send it as `authorization: Bearer TOKEN`, in Python with "
                "gradwire.Client(..., token=...) or GRADWIRE_TOKEN"
                if not given
                else "the token is not this server's"
            )


def _check(request: Any) -> None:
    if isinstance(request, Message):  # Not the stream of an upload.
        refuse_unknown_fields(request)


async def _abort(context: ServicerContext[Any, Any], error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):  # Aborted already, by the reflection service for one.
        raise error
    if not isinstance(error, ServiceError):
        error_id = secrets.token_hex(4)
        _log.error("error %s", error_id, exc_info=error)
        error = internal(error_id)
    details = ("grpc-status-details-bin", error.status().SerializeToString())
    await context.abort(error.code, error.message, trailing_metadata=(details,))
