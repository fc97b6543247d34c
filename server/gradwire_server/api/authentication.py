"""Authenticates each call with its token, and makes the caller's Principal available to the services."""

import hmac
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

from grpc.aio import ServicerContext

from gradwire_server.api.interceptor import Interceptor, StreamBehavior, UnaryBehavior
from gradwire_server.errors import InvalidTokenError
from gradwire_server.principal import OPERATOR, Principal

_principal: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Return the caller of the current method. The method must require authentication."""
    return _principal.get()


class AuthenticationInterceptor(Interceptor):
    """Refuses calls without the server's token, if it has one."""

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token else None

    def wrap_unary(self, behavior: UnaryBehavior) -> UnaryBehavior:
        """Return a behavior that first authenticates the call."""

        async def authenticated(request: Any, context: ServicerContext[Any, Any]) -> Any:
            _principal.set(self._authenticate(context))
            return await behavior(request, context)

        return authenticated

    def wrap_stream(self, behavior: StreamBehavior) -> StreamBehavior:
        """Return a behavior that first authenticates the call."""

        async def authenticated(request: Any, context: ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            _principal.set(self._authenticate(context))
            async for response in behavior(request, context):
                yield response

        return authenticated

    def _authenticate(self, context: ServicerContext[Any, Any]) -> Principal:
        if self._expected is None:
            return OPERATOR
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not given:
            raise InvalidTokenError(
                "this server requires a token. Send it as metadata `authorization: Bearer TOKEN`; in Python, use "
                "gradwire.Client(..., token=...) or set GRADWIRE_TOKEN"
            )
        if not hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._expected):
            raise InvalidTokenError("the token is wrong. Use the token that the server was started with")
        return OPERATOR
