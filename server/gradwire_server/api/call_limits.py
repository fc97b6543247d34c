"""Limits concurrent calls: those in progress, those of expensive methods, and those whose requests arrive slowly."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from grpc.aio import EOF, ServicerContext

from gradwire_server.budget import Budget
from gradwire_server.errors import ServerBusyError, TooSlowError
from gradwire_server.limits import LONG_RESPONSE_BYTES, MAX_UNRECEIVED_BYTES, MAX_WAIT_SECONDS

_UNRECEIVED = "the clients of the server have not received too many long responses yet"


class CallCount:
    """Counts the calls in progress and their long responses, and rejects calls that would exceed a maximum.

    Args:
        maximum: The maximum number of calls.
        max_bytes: The maximum total size of the long responses that clients have not received yet, in bytes.
    """

    def __init__(self, maximum: int, max_bytes: int = MAX_UNRECEIVED_BYTES) -> None:
        self._calls = Budget(maximum, lambda: ServerBusyError(f"the server has {maximum} calls in progress"))
        self._bytes = Budget(max_bytes, lambda: ServerBusyError(_UNRECEIVED))

    def call(self) -> AbstractContextManager[None]:
        """Count a call for the duration of the returned context, which raises ServerBusyError."""
        return self._calls.taken()

    def response(self, size: int) -> AbstractContextManager[None]:
        """Count a response of `size` bytes for the duration of the returned context, which raises ServerBusyError."""
        return self._bytes.taken(size) if size > LONG_RESPONSE_BYTES else nullcontext()


class Turns:
    """Limits the concurrent calls of a method. Further calls wait before their requests are received.

    Args:
        method: The name of the method, for messages.
        maximum: The maximum number of concurrent calls.
    """

    def __init__(self, method: str, maximum: int) -> None:
        self._method = method
        self._maximum = maximum
        self._free = asyncio.Semaphore(maximum)

    async def turn(self) -> AbstractContextManager[None]:
        """Wait for a turn, and return a context that holds it. Raises ServerBusyError."""
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            text = f"{self._maximum} calls of {self._method} are in progress, which is the maximum"
            raise ServerBusyError(text) from None
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._free.release()


class RequestReader:
    """Receives request messages within a time limit.

    gRPC buffers and decompresses a message, which can be far larger than the method allows, before it can be rejected.
    Small requests arrive immediately. Only a limited number of slow requests are received at a time. If there are more,
    the oldest one is rejected.

    Args:
        max_slow: The maximum number of slow requests that are received at a time.
        slow_seconds: The time after which a request counts as slow, in seconds.
    """

    def __init__(self, max_slow: int, slow_seconds: float) -> None:
        self._max_slow = max_slow
        self._slow_seconds = slow_seconds
        # The time at which each request began. The oldest comes first.
        self._pending: dict[asyncio.Timeout, float] = {}
        self._check: asyncio.TimerHandle | None = None

    async def read(self, context: ServicerContext[Any, Any], seconds: float) -> bytes | None:
        """Receive the only request of a call.

        Args:
            context: The call.
            seconds: The time limit, in seconds.

        Returns:
            The encoded message, or None if the client sent none.

        Raises:
            TooSlowError: The request took too long.
        """
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._pending[timeout] = asyncio.get_running_loop().time()
                if len(self._pending) > self._max_slow:
                    self._refuse_slow()
                return await _read(context)
        except TimeoutError:
            raise TooSlowError("the request did not arrive in time") from None
        finally:
            self._pending.pop(timeout, None)

    def _refuse_slow(self) -> None:
        """Refuse the oldest slow requests if there are too many, and check again when the next one becomes slow."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while len(self._pending) > self._max_slow:
            timeout, began = next(iter(self._pending.items()))
            if now - began < self._slow_seconds:
                if self._check is None:
                    self._check = loop.call_at(began + self._slow_seconds, self._check_again)
                return
            del self._pending[timeout]
            timeout.reschedule(now)

    def _check_again(self) -> None:
        self._check = None
        self._refuse_slow()


async def read_next(context: ServicerContext[Any, Any], seconds: float) -> bytes | None:
    """Receive the next request of a stream.

    Args:
        context: The call.
        seconds: The time limit, in seconds.

    Returns:
        The encoded message, or None at the end of the stream.

    Raises:
        TooSlowError: The request took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _read(context)
    except TimeoutError:
        raise TooSlowError("the request did not arrive in time") from None


async def write(context: ServicerContext[Any, Any], response: Any, seconds: float) -> None:
    """Send a response of a stream.

    Args:
        context: The call.
        response: The message.
        seconds: The time that the client has to receive the message, in seconds.

    Raises:
        TooSlowError: The client took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            await context.write(response)
    except TimeoutError:
        raise TooSlowError("the client did not accept a response in time") from None


async def _read(context: ServicerContext[Any, Any]) -> bytes | None:
    # Without a deserializer, gRPC returns the bytes.
    message: Any = await context.read()
    return None if message is EOF else message
