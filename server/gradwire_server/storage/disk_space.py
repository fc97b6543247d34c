"""Room on the server's disk: before there is none left, new work is refused, and running work waits.

What is kept free is for that which makes room: ending and deleting jobs.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gradwire_server.errors import DISK_FULL, ServiceError, disk_full

_log = logging.getLogger(__name__)

# Running work waits when a disk has less than this left, or this share of it; new work needs twice as much.
_RESERVED_BYTES = 64 << 20
_RESERVED_SHARE = 0.05
# How often work that waits looks whether there is room.
_LOOK_SECONDS = 1.0

T = TypeVar("T")


class Room:
    """The room on the disks that hold some folders."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def refuse_new_work(self, more_bytes: int = 0) -> None:
        """RESOURCE_EXHAUSTED unless there is room for new work, of so many bytes."""
        self._need(2, more_bytes)

    async def for_running_work(self, write: Callable[[float], Awaitable[T]]) -> T:
        """Write something for a job that runs, as soon as there is room; `write` is given the seconds of the wait."""

        async def write_if_there_is_room(waited: float) -> T:
            self._need(1)
            return await write(waited)

        return await when_there_is_room(write_if_there_is_room)

    def _need(self, reserves: int, more_bytes: int = 0) -> None:
        for folder in self._folders:
            disk = os.statvfs(folder)
            free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
            if free < reserves * min(_RESERVED_BYTES, int(size * _RESERVED_SHARE)) + more_bytes:
                raise _full(f"the server's disk has only {free >> 20} MiB left")


async def when_there_is_room(write: Callable[[float], Awaitable[T]]) -> T:
    """Try a write until the disk is not full any more; it is given the seconds that it has waited."""
    began = time.monotonic()
    waited = 0.0
    while True:
        try:
            return await write(waited)
        except ServiceError as error:
            if error.reason != DISK_FULL:
                raise
            if not waited:
                _log.warning("running jobs wait for room: %s", error)
        await asyncio.sleep(_LOOK_SECONDS)
        waited = time.monotonic() - began


@contextmanager
def refusing_when_full() -> Iterator[None]:
    """Turn a full disk into the error that clients understand."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full("the server's disk is full") from error
        raise


def _full(what: str) -> ServiceError:
    return disk_full(f"{what}: make room there, or try again later")
