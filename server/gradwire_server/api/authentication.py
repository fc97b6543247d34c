"""Authenticates each call with its token and makes the caller's Principal available to the services."""

import hmac
from collections.abc import Iterable
from contextvars import ContextVar

from gradwire_server.errors import InvalidTokenError
from gradwire_server.principal import OPERATOR, Principal

_principal: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Return the caller of the current method. The method must require authentication."""
    return _principal.get()


class Authenticator:
    """Refuses calls without the server's token, if it has one."""

    def __init__(self, token: str | None) -> None:
        self._expected = f"Bearer {token}".encode() if token else None

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Set the principal of the current call.

        Args:
            metadata: The metadata that the client sent with the call.

        Raises:
            InvalidTokenError: The token is missing or wrong, or there is more than one.
        """
        if self._expected is not None:
            self._check([value for key, value in metadata if key == "authorization"])
        _principal.set(OPERATOR)

    def _check(self, given: list[str | bytes]) -> None:
        assert self._expected is not None
        if not given or not given[0]:
            raise InvalidTokenError(
                "this server requires a token. Send it as metadata `authorization: Bearer TOKEN`; in Python, use "
                "gradwire.Client(..., token=...) or set GRADWIRE_TOKEN"
            )
        if len(given) > 1:
            raise InvalidTokenError(f"the call has {len(given)} authorization headers. Send exactly one")
        value = given[0]
        if not hmac.compare_digest(value if isinstance(value, bytes) else value.encode(), self._expected):
            raise InvalidTokenError("the token is wrong. Use the token that the server was started with")
