"""Disk space: before a disk is full, new work is refused and running jobs wait.

The reserve lets jobs end and be deleted when the disk is full.
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

from gradwire_server.errors import DiskFullError

_log = logging.getLogger(__name__)

# Running jobs wait when less than this is free, in bytes or as a share of the disk, whichever is smaller. New work
# requires twice as much.
_RESERVE_BYTES = 64 << 20
_RESERVE_SHARE = 0.05
# How often waiting work checks for free space.
_CHECK_SECONDS = 1.0

T = TypeVar("T")


class DiskSpace:
    """The free space of the disks that hold some folders."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._refused_work = False

    def require_for_new_work(self, size: int = 0) -> None:
        """Check that there is space for new work.

        Args:
            size: How much the work will write, in bytes.

        Raises:
            DiskFullError: There is not enough space.
        """
        try:
            self._require(2, size)
        except DiskFullError:
            self._refused_work = True
            raise

    def require_for_running_work(self) -> None:
        """Raise DiskFullError unless there is space for what running jobs write."""
        self._require(1, 0)

    def is_tight(self) -> bool:
        """Whether there is hardly any space for new work, or none was found since the last call."""
        refused, self._refused_work = self._refused_work, False
        if refused:
            return True
        try:
            self._require(3, 0)
        except DiskFullError:
            return True
        return False

    def _require(self, reserves: int, size: int) -> None:
        for folder in self._folders:
            disk = os.statvfs(folder)
            free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
            if free < reserves * min(_RESERVE_BYTES, int(total * _RESERVE_SHARE)) + size:
                raise DiskFullError(f"the disk of the server has only {free >> 20} MiB left")


async def wait_for_space(write: Callable[[float], Awaitable[T]]) -> T:
    """Call `write` until it does not raise DiskFullError, and return its result.

    Args:
        write: Receives the time in seconds that it has waited so far.
    """
    began = time.monotonic()
    waited = 0.0
    while True:
        try:
            return await write(waited)
        except DiskFullError as error:
            if not waited:
                _log.warning("running jobs are waiting for disk space: %s", error)
        await asyncio.sleep(_CHECK_SECONDS)
        waited = time.monotonic() - began


@contextmanager
def disk_full_errors() -> Iterator[None]:
    """Turn the operating system's error for a full disk into a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the disk of the server is full") from error
        raise
