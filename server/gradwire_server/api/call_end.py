"""Ends calls. gRPC keeps a call and its response until the client has received the response, which can take forever.

gRPC for Python has no way to end a call whose client does not receive anything. However, a call ends when the tasks
that gRPC creates for it end. One of them runs the service's method, and its parent waits for the end of the call.
"""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

# The coroutines of the two tasks that gRPC creates for each call. The first one creates the second one.
_CALL, _METHOD = "_schedule_rpc_coro", "_handle_exceptions"


class _MethodTask(asyncio.Task[Any]):
    """A task that runs the service's method. It knows the task of its call."""

    call: "weakref.ref[asyncio.Task[Any]] | None" = None


def remember_calls() -> None:
    """Make the tasks that gRPC creates in the running event loop remember their calls."""
    asyncio.get_running_loop().set_task_factory(_new_task)


def close_later(seconds: float, on_end: Callable[[], object]) -> None:
    """Close the current call unless its client receives the responses and the status in time.

    Args:
        seconds: The time limit, in seconds.
        on_end: A function that is called when the call has ended.
    """
    task = asyncio.current_task()
    call = task.call() if isinstance(task, _MethodTask) and task.call is not None else None
    if task is None or call is None:
        on_end()
        return
    tasks = (task, call)

    def close() -> None:
        for each in tasks:
            each.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, close)

    def end(_call: object) -> None:
        timer.cancel()
        on_end()

    call.add_done_callback(end)


def _new_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    if getattr(coroutine, "__name__", "") != _METHOD:
        return asyncio.Task(coroutine, loop=loop, **options)
    task = _MethodTask(coroutine, loop=loop, **options)
    parent = asyncio.current_task()
    if parent is not None and getattr(parent.get_coro(), "__name__", "") == _CALL:
        task.call = weakref.ref(parent)
    return task
