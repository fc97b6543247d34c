"""A small disk of its own, that can run full."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(folder: Path, mib: int = 100) -> Iterator["Disk | None"]:
    """Mount a disk of that size there, or yield None where this user may not."""
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
    """Can be filled, and made room on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Take all but so many bytes."""
        with self._ballast.open("wb") as ballast:
            while True:
                room = os.statvfs(self.folder)
                # Others may write meanwhile: then there is less than it said.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - leave)
                    return

    def make_room(self) -> None:
        """Give it all back."""
        self._ballast.unlink()
