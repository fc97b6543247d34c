"""Stores blobs under their SHA-256 digests, in a folder or an object store. Only the server writes blobs."""

import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from gradwire_server.private_files import make_private
from gradwire_server.storage.disk_space import disk_full_errors
from gradwire_worker.blob_reader import BlobReader

# A blob that every store contains. A worker reads it to find out whether it can access the store.
_PROBE = b"gradwire blob store"
# The name of the file that contains the mark of the store.
_MARK = "mark"
# While the disk is nearly full, unreferenced blobs in it are kept only this long after their last use.
TIGHT_RETENTION_SECONDS = 300.0
# In a folder, the recorded time of the last use is accurate to about this many seconds. In an object store, updating it
# requires writing the whole blob.
_USE_SECONDS = 60.0
# Unreferenced blobs are kept for this long after their last use, because a job that needs them may still be created.
RETENTION_SECONDS = 86_400.0
_COPY_BYTES = 1 << 22


class _DamagedError(Exception):
    """The bytes of a file do not match its digest."""


@dataclass(frozen=True)
class StoredBlob:
    """A blob: its digest, its size in bytes, and the approximate time of its last use, in seconds since 1970."""

    sha256: str
    size: int
    used: float


class BlobStore(BlobReader):
    """A BlobReader that also writes blobs. It writes to `staging` first, so that a blob never appears incomplete.

    If the store is a folder, the staging area is inside it, because a rename is atomic only within a file system. Each
    server has its own staging area.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url, cache=scratch / "cache")
        server = hashlib.sha256(f"{platform.node()}:{scratch.resolve()}".encode()).hexdigest()[:12]
        # The folder that contains every server's staging area.
        self._staging_root = Path(self.root, "staging") if self.is_local else scratch / "staging"
        self.staging = self._staging_root / server
        if self.is_local:
            make_private(Path(self.root))
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

    def copy(self, path: str, sha256: str) -> bool:
        """Copy a file of the store to a blob, without holding it in memory. Returns False if its digest differs."""
        try:
            self._write(self.blob_path(sha256), self._verified_blocks(path, sha256))
        except _DamagedError:
            return False
        return True

    def adopt(self, sha256: str, staged: Path) -> None:
        """Move a complete, synced and verified file into the store."""
        self._move(staged, self.blob_path(sha256))

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Write a file durably and atomically to the store's file system."""
        self._write(path, [data])

    def _verified_blocks(self, path: str, sha256: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        with self.fs.open(path, "rb") as file:
            while block := file.read(_COPY_BYTES):
                digest.update(block)
                yield block
        if digest.hexdigest() != sha256:
            raise _DamagedError

    def _write(self, path: str, blocks: Iterable[bytes | memoryview]) -> None:
        with tempfile.NamedTemporaryFile(dir=self.staging, delete=False) as file:
            staged = Path(file.name)
            try:
                with disk_full_errors():
                    for block in blocks:
                        file.write(block)
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
            if self._age(path) > (_USE_SECONDS if self.is_local else RETENTION_SECONDS / 2):
                if self.is_local:
                    os.utime(path)
                else:
                    self.fs.pipe_file(path, self.fs.cat_file(path))
        except FileNotFoundError:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """Delete a blob if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.blob_path(sha256))

    def unused_files(self, seconds: float = RETENTION_SECONDS) -> list[str]:
        """Return the files in the store and the staging areas that have not been written or used for some seconds."""
        staged = [str(path) for path in self._staged_files()]
        return [path for path in {*self.fs.find(self.root), *staged} if self._is_unused(path, seconds)]

    def delete_if_unused(self, path: str, seconds: float = RETENTION_SECONDS) -> bool:
        """Delete a file unless it was used in the meantime. Returns whether the file was deleted."""
        if not self._is_unused(path, seconds):
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

    def blobs_after(self, sha256: str, count: int) -> list[StoredBlob]:
        """Return the next blobs that clients or jobs stored, in the order of their digests.

        Args:
            sha256: The digest after which to start, or an empty string to start at the beginning.
            count: The maximum number of blobs to return.
        """
        found: list[StoredBlob] = []
        for files in self._listed_files(sha256):
            blobs = {PurePosixPath(path).name: entry for path, entry in files.items() if self.is_blob(path)}
            for name in sorted(name for name in blobs if name > sha256):
                with suppress(FileNotFoundError):  # The blob has just been deleted.
                    found.append(StoredBlob(name, blobs[name]["size"], self._modified(name, blobs[name])))
                if len(found) == count:
                    return found
        return found

    def _listed_files(self, sha256: str) -> Iterator[dict[str, dict[str, Any]]]:
        """Yield the properties of the files that can be blobs after a digest, by path."""
        if not self.is_local:  # One request lists many files; a request for each folder would be slow.
            yield self.fs.find(self.root, detail=True)
            return
        for prefix in range(int(sha256[:2] or "0", 16), 256):
            folder = f"{self.root}/{prefix:02x}"
            if self.fs.exists(folder):
                yield {entry["name"]: entry for entry in self.fs.ls(folder, detail=True)}

    def _modified(self, sha256: str, entry: dict[str, Any]) -> float:
        """Return the time when a blob was last written or used, without another request if possible."""
        known = entry.get("mtime", entry.get("LastModified"))
        if isinstance(known, float):
            return known
        time_ = known if isinstance(known, datetime) else self.fs.modified(self.blob_path(sha256))
        return float(time_.timestamp())

    def stored_bytes(self) -> int:
        """Return the size of all files in the store: tensors, checkpoints, and incomplete uploads."""
        return sum(entry["size"] for entry in self.fs.find(self.root, detail=True).values())

    def _staged_files(self) -> list[Path]:
        return [path for path in self._staging_root.rglob("*") if path.is_file()]

    def _is_unused(self, path: str, seconds: float) -> bool:
        try:
            return self._age(path) > seconds
        except FileNotFoundError:
            return False

    def _age(self, path: str) -> float:
        if self.is_local or self.is_staged(path):
            return time.time() - Path(path).stat().st_mtime  # Fast, because it runs for each tensor of each new job.
        return time.time() - self.fs.modified(path).timestamp()

    def _move(self, staged: Path, path: str) -> None:
        with disk_full_errors():
            if not self.is_local:
                self.fs.put_file(str(staged), path)
                staged.unlink()
                return
            folder = Path(path).parent
            _make_folder(folder)
            staged.replace(path)
            _sync_folder(folder)


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it durably, if they do not exist."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that renames in it are durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
