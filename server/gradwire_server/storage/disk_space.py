"""Checks the free space and inodes of disks. Before a disk is full, new work is rejected, and running jobs wait.

Because of this reserve, jobs can still end and be deleted when the disk is full.
"""

import asyncio
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gradwire_server.errors import DiskFullError

_log = logging.getLogger(__name__)

# Running jobs wait if the free space is less than this size in bytes or this share of the disk, whichever is smaller.
# New work requires twice as much free space.
_RESERVE_BYTES = 64 << 20
_RESERVE_SHARE = 0.05
# The same for inodes. Each file needs one, so many small files can use up the inodes while there is still space.
_RESERVE_INODES = 10_000
# The interval at which waiting work checks for free space.
_CHECK_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class _Disk:
    """The bytes and inodes that the server can use, in total and at the moment. `inodes` is 0 if there is no limit."""

    total: int
    free: int
    inodes: int
    free_inodes: int

    @classmethod
    def of(cls, folder: Path) -> "_Disk":
        found = os.statvfs(folder)
        kept_for_root = found.f_bfree - found.f_bavail
        total = (found.f_blocks - kept_for_root) * found.f_frsize
        # Some file systems have no fixed number of inodes, and report 0.
        return cls(total, found.f_bavail * found.f_frsize, found.f_files, found.f_favail)

    @property
    def reserve(self) -> int:
        return min(_RESERVE_BYTES, int(self.total * _RESERVE_SHARE))

    @property
    def inode_reserve(self) -> int:
        return min(_RESERVE_INODES, int(self.inodes * _RESERVE_SHARE))


class DiskSpace:
    """The free space on the disks that contain the given folders."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._refused_work = False

    def require_for_new_work(self, size: int = 0) -> None:
        """Check that there is space for new work.

        Args:
            size: The number of bytes that the work will write.

        Raises:
            DiskFullError: There is not enough disk space.
        """
        try:
            self._require(2, size)
        except DiskFullError:
            # What does not fit on the empty disk would not fit after a collection either.
            if all(size <= disk.total - 2 * disk.reserve for disk in self._disks()):
                self._refused_work = True
            raise

    def require_for_running_work(self) -> None:
        """Raise DiskFullError unless there is enough space for the writes of running jobs."""
        self._require(1, 0)

    def is_tight(self) -> bool:
        """Whether there is little space for new work, or new work that an empty disk could hold was rejected.

        Only rejections since the last call count.
        """
        refused, self._refused_work = self._refused_work, False
        if refused:
            return True
        try:
            self._require(3, 0)
        except DiskFullError:
            return True
        return False

    def _require(self, reserves: int, size: int) -> None:
        for disk in self._disks():
            if disk.free < reserves * disk.reserve + size:
                raise DiskFullError(f"the disk of the server has only {disk.free >> 20} MiB left")
            if disk.free_inodes < reserves * disk.inode_reserve:
                raise DiskFullError(f"the disk of the server has inodes for only {disk.free_inodes} more files")

    def _disks(self) -> list[_Disk]:
        return [_Disk.of(folder) for folder in self._folders]


async def wait_for_space(write: Callable[[float], Awaitable[T]]) -> T:
    """Call `write` until it does not raise DiskFullError, and return its result.

    Args:
        write: A function that receives the time that it has waited so far, in seconds.
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
    """Convert the operating system's error for a full disk to a DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("the disk of the server is full") from error
        raise
