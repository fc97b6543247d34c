"""Threads for the blocking work of client calls. The server's own work uses other threads, so calls cannot delay it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8


async def in_thread(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run a function in one of the threads for calls, and return its result.

    If the call is cancelled before the function starts, the function does not run. If the function is already running,
    the call ends when the function ends, so a call counts against the limits as long as it uses a thread.
    """
    work = _pool().submit(function, *arguments, **options)
    result = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        if not work.cancel():
            await asyncio.wait([result])
        raise


def close_threads() -> None:
    """Drop the work that has not started. Functions that are running are not interrupted."""
    _pool().shutdown(wait=False, cancel_futures=True)
    _pool.cache_clear()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="call")
