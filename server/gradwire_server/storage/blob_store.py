"""Stores blobs under their SHA-256 digests, in a folder or an object store. Only the server writes blobs."""

import hashlib
import os
import platform
import tempfile
import time
from pathlib import Path, PurePosixPath

from gradwire_server.storage.disk_space import disk_full_errors
from gradwire_worker.blob_reader import BlobReader

# A blob that every store contains. A worker reads it to find out whether it can access the store.
_PROBE = b"gradwire blob store"
# The name of the file that contains the mark of the store.
_MARK = "mark"
# Unreferenced blobs are kept for this long after their last use, because a job that needs them may still be created.
RETENTION_SECONDS = 86_400.0


class BlobStore(BlobReader):
    """A BlobReader that also writes blobs. It writes to `staging` first, so that a blob never appears incomplete.

    If the store is a folder, the staging area is inside it, because a rename is atomic only within a file system. Each
    server has its own staging area.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url, cache=scratch / "cache")
        server = hashlib.sha256(f"{platform.node()}:{scratch.resolve()}".encode()).hexdigest()[:12]
        # The parent folder of the staging areas of all servers.
        self._staging_root = Path(self.root, "staging") if self.is_local else scratch / "staging"
        self.staging = self._staging_root / server
        self.staging.mkdir(parents=True, exist_ok=True)
        self.probe = hashlib.sha256(_PROBE).hexdigest()
        self.put(self.probe, _PROBE)

    @property
    def mark(self) -> str | None:
        """The mark that connects this store to its database, or None in a new store."""
        path = f"{self.root}/{_MARK}"
        return str(self.fs.cat_file(path).decode()) if self.fs.exists(path) else None

    def set_mark(self, mark: str) -> None:
        """Connect this store to the database that has this mark."""
        self.write(f"{self.root}/{_MARK}", mark.encode())

    def put(self, sha256: str, data: bytes | memoryview) -> None:
        """Store bytes with a verified digest."""
        if not self.has(sha256):
            self.write(self.blob_path(sha256), data)

    def adopt(self, sha256: str, staged: Path) -> None:
        """Move a complete, synced and verified file into the store."""
        self._move(staged, self.blob_path(sha256))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file durably and atomically to the store's file system."""
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            staged = Path(file.name)
            try:
                with disk_full_errors():
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._move(staged, path)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    def touch(self, sha256: str) -> bool:
        """Mark a blob as used, so that it is kept for at least another day. Returns whether the blob exists."""
        path = self.blob_path(sha256)
        try:
            if self._age(path) > RETENTION_SECONDS / 2:
                if self.is_local:
                    os.utime(path)
                else:
                    self.fs.pipe_file(path, self.fs.cat_file(path))
        except FileNotFoundError:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """Delete a blob if it exists."""
        if self.has(sha256):
            self.fs.rm_file(self.blob_path(sha256))

    def unused_files(self) -> list[str]:
        """Return the files in the store and in the staging areas that have not been written or used for a day."""
        staged = [str(path) for path in self._staged_files()]
        return [path for path in {*self.fs.find(self.root), *staged} if self._is_unused(path)]

    def delete_if_unused(self, path: str) -> bool:
        """Delete a file unless it was used in the meantime. Returns whether the file was deleted."""
        if not self._is_unused(path):
            return False
        if self.is_staged(path):
            Path(path).unlink()
        else:
            self.fs.rm_file(path)
        return True

    def is_staged(self, path: str) -> bool:
        """Return whether the file is in a staging area, which means that it is incomplete."""
        return Path(path).is_relative_to(self._staging_root)

    def is_blob(self, path: str) -> bool:
        """Return whether the file is a blob that a client or a job stored."""
        sha256 = PurePosixPath(path).name
        return path == self.blob_path(sha256) and sha256 != self.probe

    def _staged_files(self) -> list[Path]:
        return [path for path in self._staging_root.rglob("*") if path.is_file()]

    def _is_unused(self, path: str) -> bool:
        try:
            return self._age(path) > RETENTION_SECONDS
        except FileNotFoundError:
            return False

    def _age(self, path: str) -> float:
        if self.is_local or self.is_staged(path):
            return time.time() - Path(path).stat().st_mtime  # Each tensor of each new job takes this path.
        return time.time() - self.fs.modified(path).timestamp()

    def _move(self, staged: Path, path: str) -> None:
        with disk_full_errors():
            if not self.is_local:
                self.fs.put_file(str(staged), path)
                staged.unlink()
                return
            folder = Path(path).parent
            folder.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames in it are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
