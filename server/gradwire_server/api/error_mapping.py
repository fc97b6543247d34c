"""Converts exceptions to gRPC statuses."""

import asyncio
import logging
import secrets
from typing import Any

import grpc
from grpc.aio import ServicerContext

from gradwire_server.api.status import internal_status, status_of
from gradwire_server.errors import DomainError

_log = logging.getLogger(__name__)

# The binary trailer in which gRPC transmits a google.rpc.Status.
_STATUS_TRAILER = "grpc-status-details-bin"


async def abort(context: ServicerContext[Any, Any], error: Exception) -> None:
    """End a call with the status for an exception."""
    if isinstance(error, grpc.aio.AbortError):  # Already aborted, for example by the reflection service.
        raise error
    if isinstance(error, grpc.aio.BaseError):
        raise asyncio.CancelledError from error  # The client has disconnected. gRPC would log any other exception.
    if isinstance(error, DomainError):
        # The frames of the call hold its request, which must not stay in memory while a slow client receives the
        # status.
        error.__traceback__ = error.__context__ = None
        code, status = status_of(error)
    else:
        error_id = secrets.token_hex(4)
        _log.error("error %s", error_id, exc_info=error)
        code, status = internal_status(error_id)
    try:
        await context.abort(code, status.message, trailing_metadata=((_STATUS_TRAILER, status.SerializeToString()),))
    except grpc.aio.AbortError as raised:
        raised.__traceback__ = None  # gRPC stores the error in the call, so its frames would keep the call alive.
        raise
    except grpc.aio.BaseError:
        # A response that the client does not receive blocks the status.
        raise asyncio.CancelledError from None
