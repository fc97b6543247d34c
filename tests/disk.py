"""A small disk that a test can fill."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, mib: int = 100) -> Iterator["Disk | None"]:
    """Mount a disk of `mib` MiB at a folder. Yields None if this user cannot mount a disk."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Disk:
    """A mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Fill the disk so that `leave` bytes remain free."""
        with self._ballast.open("wb") as ballast:
            while True:
                space = os.statvfs(self.folder)
                # If another process writes at the same time, less space is available than this call reports.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(ballast.fileno(), 0, space.f_bavail * space.f_frsize - leave)
                    return

    def free(self) -> None:
        """Free the space again."""
        self._ballast.unlink()
