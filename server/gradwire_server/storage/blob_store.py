"""Bytes by digest: tensors and weights in a folder, or in an object store by fsspec. The server alone writes them."""

import hashlib
import os
import platform
import tempfile
import time
from pathlib import Path, PurePosixPath

from gradwire_server.storage.disk_space import refusing_when_full
from gradwire_worker.blob_reader import BlobReader

# A blob that every store has, by which a worker tells whether it reaches the store.
_PROBE = b"gradwire blob store"
# The file that holds the store's mark.
_MARK = "mark"
# What nothing names is kept this long after it was last wanted: its job may still come.
KEPT_SECONDS = 86_400.0


class BlobStore(BlobReader):
    """A reader that also writes: to a file in `staging` first, so that a blob appears whole or not at all.

    For a store that is a folder, the staging area is in it, because a file can only be moved within a file system. It
    is this server's alone, though others may write to the same store.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url, cache=scratch / "cache")
        server = hashlib.sha256(f"{platform.node()}:{scratch.resolve()}".encode()).hexdigest()[:12]
        # Of all servers; the one below is this server's.
        self._staging_root = Path(self.root, "staging") if self.is_local else scratch / "staging"
        self.staging = self._staging_root / server
        self.staging.mkdir(parents=True, exist_ok=True)
        self.probe = hashlib.sha256(_PROBE).hexdigest()
        self.put(self.probe, _PROBE)

    @property
    def mark(self) -> str | None:
        """The text by which the database knows its blob store, if it lies here."""
        path = f"{self.root}/{_MARK}"
        return str(self.fs.cat_file(path).decode()) if self.fs.exists(path) else None

    def set_mark(self, mark: str) -> None:
        """Make this the blob store of the database with that mark."""
        self.write(f"{self.root}/{_MARK}", mark.encode())

    def put(self, sha256: str, data: bytes | memoryview) -> None:
        """Store bytes whose digest is known to be right."""
        if not self.has(sha256):
            self.write(self.blob_path(sha256), data)

    def adopt(self, sha256: str, staged: Path) -> None:
        """Move a file, complete, synced and of that digest, into the store."""
        self._move(staged, self.blob_path(sha256))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file in the store's file system: durable, and whole or not at all."""
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            staged = Path(file.name)
            try:
                with refusing_when_full():
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._move(staged, path)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    def keep(self, sha256: str) -> bool:
        """Say that a blob is wanted: it is then there for a day at least, named or not; False if it is not there."""
        path = self.blob_path(sha256)
        try:
            if self._age(path) > KEPT_SECONDS / 2:
                if self.is_local:
                    os.utime(path)
                else:
                    self.fs.pipe_file(path, self.fs.cat_file(path))
        except FileNotFoundError:
            return False
        return True

    def old_files(self) -> list[str]:
        """Return the files of the store and its staging area that nobody has written or wanted for a day."""
        staged = [str(path) for path in self._staged_files()]
        return [path for path in {*self.fs.find(self.root), *staged} if self._is_old(path)]

    def delete_if_old(self, path: str) -> bool:
        """Delete a file, unless it has been wanted meanwhile."""
        if not self._is_old(path):
            return False
        if self.is_staged(path):
            Path(path).unlink()
        else:
            self.fs.rm_file(path)
        return True

    def is_staged(self, path: str) -> bool:
        """Whether the file is one that was not finished."""
        return Path(path).is_relative_to(self._staging_root)

    def is_blob(self, path: str) -> bool:
        """Whether the file is a tensor or weights, and none that the store itself needs."""
        sha256 = PurePosixPath(path).name
        return path == self.blob_path(sha256) and sha256 != self.probe

    def _staged_files(self) -> list[Path]:
        return [path for path in self._staging_root.rglob("*") if path.is_file()]

    def _is_old(self, path: str) -> bool:
        try:
            return self._age(path) > KEPT_SECONDS
        except FileNotFoundError:
            return False

    def _age(self, path: str) -> float:
        if self.is_staged(path):
            return time.time() - Path(path).stat().st_mtime
        return time.time() - self.fs.modified(path).timestamp()

    def _move(self, staged: Path, path: str) -> None:
        with refusing_when_full():
            if not self.is_local:
                self.fs.put_file(str(staged), path)
                staged.unlink()
                return
            folder = Path(path).parent
            folder.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
