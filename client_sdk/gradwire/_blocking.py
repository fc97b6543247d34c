"""The base of the blocking classes, which run the async methods in an event loop on a background thread."""

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache, wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakSet

from gradwire._exceptions import GradwireError
from gradwire._transport import is_forked, refuse_after_fork

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


@cache
def _loop_of(_process: int) -> asyncio.AbstractEventLoop:
    """Return the event loop that all blocking clients in a process share. It runs in a background thread.

    The loop is never closed, because gRPC wakes every loop that it has used, and logs errors for closed loops.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gradwire", daemon=True).start()
    return loop


class Portal:
    """Runs the coroutines of one client in the shared event loop."""

    def __init__(self) -> None:
        self._loop = _loop_of(os.getpid())
        self._calls: set[Future[Any]] = set()
        self._streams: WeakSet[AsyncGenerator[Any, None]] = WeakSet()
        self.closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and wait for the result. Ctrl-C cancels the coroutine."""
        future = self._start(coroutine)
        try:
            return future.result()
        except GradwireError as error:
            # Omit the frames of the event loop, so that the traceback ends at the user's call.
            raise error.with_traceback(None) from None
        except BaseException:
            future.cancel()
            raise

    async def call_from_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and await it in the caller's event loop."""
        return await asyncio.wrap_future(self._start(coroutine))

    def close_with_portal(self, stream: AsyncGenerator[Any, None]) -> None:
        """Close a stream when the portal closes, if the stream is still open."""
        self._streams.add(stream)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Cancel the running calls, close the open streams, and then run `last`."""
        if self.closed or is_forked():
            if last is not None:
                last.close()
            return
        for call in list(self._calls):
            call.cancel()
        self.call(self._close_streams())
        if last is not None:
            self.call(last)
        self.closed = True

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        try:
            refuse_after_fork()
            if self.closed:
                raise RuntimeError("the client is closed")
        except BaseException:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    async def _close_streams(self) -> None:
        for stream in list(self._streams):
            with suppress(RuntimeError):  # A call that was just cancelled still uses the stream and closes it.
                await stream.aclose()


class Facade(Protocol[A_co]):
    """The blocking form of an async object."""

    @property
    def _async(self) -> A_co: ...

    @property
    def _portal(self) -> Portal: ...


def blocking(method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Facade[A], P], T]:
    """Return a blocking version of `method`, with the same arguments, result and docstring."""

    @wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._async, *args, **kwargs))

    return cast(Callable[Concatenate[Facade[A], P], T], call)


def blocking_as(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]], wrap: Callable[[T, Portal], B]
) -> Callable[Concatenate[Facade[A], P], B]:
    """Return a blocking version of `method` that converts the result to its blocking form.

    Args:
        method: The async method.
        wrap: A blocking class, or a function with a return annotation, that takes the result and the portal.
    """

    @wraps(method)
    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> B:
        return wrap(self._portal.call(method(self._async, *args, **kwargs)), self._portal)

    returns = wrap.__name__ if isinstance(wrap, type) else wrap.__annotations__["return"]
    call.__signature__ = inspect.signature(method).replace(return_annotation=returns)  # type: ignore[attr-defined]
    call.__annotations__ = {**method.__annotations__, "return": returns}
    return cast(Callable[Concatenate[Facade[A], P], B], call)


class Stream(Generic[T]):
    """An iterator over items as they arrive, for use with `for` or `async for`."""

    def __init__(self, batches: AsyncGenerator[Sequence[T], None], portal: Portal) -> None:
        # Items are fetched in batches, because switching to the portal's thread is the most expensive step.
        self._batches = batches
        self._portal = portal
        portal.close_with_portal(batches)
        self._ready: deque[T] = deque()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            while not self._ready:
                self._ready.extend(self._portal.call(self._next()))
        except StopAsyncIteration:
            raise StopIteration from None
        return self._ready.popleft()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            self._ready.extend(await self._portal.call_from_async(self._next()))
        return self._ready.popleft()

    async def _next(self) -> Sequence[T]:
        return await anext(self._batches)
