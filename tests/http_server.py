"""A server with an HTTP port for tests, in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server_without_ray import Running, serving


@contextmanager
def http_server(folder: Path, **settings: Any) -> Iterator[Running]:
    """Run a server with a gateway within the context. `settings` are those of Settings."""
    started: list[Running] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(folder, **{"http_port": None, **settings}) as running:
            started.append(running)
            ready.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:
            failure.append(error)
        ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    if failure:
        thread.join()
        raise failure[0]
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
