"""Bytes by digest: tensors and weights in a folder, or in an object store by fsspec. The server alone writes them."""

import errno
import hashlib
import os
import platform
import tempfile
from pathlib import Path

from gradwire_server.errors import disk_full
from gradwire_worker.tensors import BlobReader

# A blob that every store has, by which a worker tells whether it reaches the store.
_PROBE = b"gradwire blob store"
# The file that holds the store's mark.
_MARK = "mark"


class BlobStore(BlobReader):
    """A reader that also writes: to a file in `staging` first, so that a blob appears whole or not at all.

    For a store that is a folder, the staging area is in it, because a file can only be moved within a file system. It
    is this server's alone, though others may write to the same store.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url, cache=scratch / "cache")
        server = hashlib.sha256(f"{platform.node()}:{scratch.resolve()}".encode()).hexdigest()[:12]
        self.staging = Path(self.root, "staging", server) if self.is_local else scratch
        self.staging.mkdir(parents=True, exist_ok=True)
        self.probe = hashlib.sha256(_PROBE).hexdigest()
        self.put(self.probe, _PROBE)

    @property
    def mark(self) -> str | None:
        """The text by which the database knows its blob store, if it lies here."""
        path = f"{self.root}/{_MARK}"
        return self.fs.cat_file(path).decode() if self.fs.exists(path) else None

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
        with refusing_when_full(), tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._move(Path(file.name), path)

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


class refusing_when_full:  # noqa: N801  (reads as a phrase where it is used)
    """Turns a full disk into the error that clients understand."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full("the server's disk is full; delete what is not needed, or try again later") from error
