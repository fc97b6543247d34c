"""How the blocking classes use the async ones: an event loop on a thread of its own, and methods that wait on it."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

A = TypeVar("A")
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """An event loop that runs on a thread until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gradwire", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it here. Ctrl-C here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call_from_async(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and await it here, in the event loop of the caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def close(self) -> None:
        """Stop the loop and its thread."""
        if self._loop.is_closed():
            return
        self.call(_end_other_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_other_tasks() -> None:
    """Cancel what still runs in this loop, streams that nobody reads any more for one, and wait for its end."""
    await asyncio.get_running_loop().shutdown_asyncgens()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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

    def __init__(self, batches: AsyncIterator[Sequence[T]], portal: Portal) -> None:
        # The way to the portal's thread and back takes longer than all else that is done with an item.
        self._batches = batches
        self._portal = portal
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
