"""How the blocking classes use the async ones: an event loop on a thread of its own, and methods that wait on it."""

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cache, wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast
from weakref import WeakSet

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


@cache
def _loop_of(_process: int) -> asyncio.AbstractEventLoop:
    """Return the event loop of all blocking clients of a process, on a thread of its own.

    There is one, and it is never closed: gRPC wakes every loop that it has ever seen, and complains of closed ones.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gradwire", daemon=True).start()
    return loop


class Portal:
    """The way of one client to the event loop that it works in."""

    def __init__(self) -> None:
        # A process that was forked off has none of the threads of the one before.
        self._loop = _loop_of(os.getpid())
        self._calls: set[Future[Any]] = set()
        self._streams: WeakSet[AsyncGenerator[Any, None]] = WeakSet()
        self.closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it here. Ctrl-C here cancels it there."""
        future = self._start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call_from_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and await it here, in the event loop of the caller."""
        return await asyncio.wrap_future(self._start(coroutine))

    def end_with_this(self, stream: AsyncGenerator[Any, None]) -> None:
        """Close a stream, if it is still open, when the portal is closed."""
        self._streams.add(stream)

    def close(self) -> None:
        """Cancel what still runs, and end the streams that nobody reads any more."""
        if self.closed:
            return
        for call in list(self._calls):
            call.cancel()
        self.call(self._end_streams())
        self.closed = True

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        if self.closed:
            coroutine.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    async def _end_streams(self) -> None:
        for stream in list(self._streams):
            with suppress(RuntimeError):  # A call that was just cancelled still holds it, and ends it.
                await stream.aclose()


class Blocking(Generic[A]):
    """The blocking face of an async object."""

    def __init__(self, async_: A, portal: Portal) -> None:
        self._async = async_
        self._portal = portal


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[A], P], T]:
    """Return the method that waits for `method`: the same arguments, result and docstring."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._async, *args, **kwargs))

    return cast(Callable[Concatenate[Blocking[A], P], T], call)


def blocking_as(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]], wrap: Callable[[T, Portal], B]
) -> Callable[Concatenate[Blocking[A], P], B]:
    """Like `blocking`, for results that have a blocking face of their own."""

    @wraps(method)
    def call(self: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> B:
        return wrap(self._portal.call(method(self._async, *args, **kwargs)), self._portal)

    return cast(Callable[Concatenate[Blocking[A], P], B], call)


class Stream(Generic[T]):
    """Items as they happen, for `for` and for `async for`."""

    def __init__(self, batches: AsyncGenerator[Sequence[T], None], portal: Portal) -> None:
        # The way to the portal's thread and back takes longer than all else that is done with an item.
        self._batches = batches
        self._portal = portal
        portal.end_with_this(batches)
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
