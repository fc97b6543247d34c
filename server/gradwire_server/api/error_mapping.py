"""Converts exceptions to gRPC statuses."""

import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc.aio import ServicerContext

from gradwire_server.api.interceptor import Interceptor, StreamBehavior, UnaryBehavior
from gradwire_server.api.status import internal_status, status_of
from gradwire_server.errors import DomainError

_log = logging.getLogger(__name__)

# The binary trailer in which gRPC transmits a google.rpc.Status.
_STATUS_TRAILER = "grpc-status-details-bin"


class ErrorMappingInterceptor(Interceptor):
    """Aborts calls that raise exceptions, with the matching status. It must be the server's first interceptor."""

    def wrap_unary(self, behavior: UnaryBehavior) -> UnaryBehavior:
        """Return a behavior that converts exceptions to statuses."""

        async def mapped(request: Any, context: ServicerContext[Any, Any]) -> Any:
            try:
                return await behavior(request, context)
            except Exception as error:
                await _abort(context, error)

        return mapped

    def wrap_stream(self, behavior: StreamBehavior) -> StreamBehavior:
        """Return a behavior that converts exceptions to statuses."""

        async def mapped(request: Any, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async for response in behavior(request, context):
                    yield response
            except Exception as error:
                await _abort(context, error)

        return mapped


async def _abort(context: ServicerContext[Any, Any], error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):  # The call is already aborted, for example by the reflection service.
        raise error
    if isinstance(error, DomainError):
        code, status = status_of(error)
    else:
        error_id = secrets.token_hex(4)
        _log.error("error %s", error_id, exc_info=error)
        code, status = internal_status(error_id)
    await context.abort(code, status.message, trailing_metadata=((_STATUS_TRAILER, status.SerializeToString()),))
