"""Receives uploads. Chunks are hashed and written as they arrive, and complete files become blobs."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from gradwire_server.errors import DigestMismatchError, DiskFullError, OffsetOutOfRangeError, invalid_field
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.disk_space import DiskSpace, disk_full_errors

_READ_BYTES = 1 << 22


class Uploads:
    """The partial files of tensors that are being uploaded. Uploads of the same tensor run one after another."""

    def __init__(self, blobs: BlobStore, folder: Path, disk_space: DiskSpace) -> None:
        self._blobs = blobs
        self._disk_space = disk_space
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._locks: dict[str, asyncio.Lock] = {}

    def received_bytes(self, sha256: str) -> int:
        """Return the number of bytes that have arrived in an incomplete upload."""
        part = self._part(sha256)
        return part.stat().st_size if part.exists() else 0

    @asynccontextmanager
    async def receive(self, sha256: str, size: int, offset: int) -> AsyncIterator["Upload | None"]:
        """Start or continue an upload. Yields None if the tensor is already stored.

        Args:
            sha256: The digest of the tensor.
            size: The size of the tensor, in bytes.
            offset: The offset at which the upload continues, in bytes. It is 0 or the number of received bytes.

        Raises:
            OffsetOutOfRangeError: The offset is neither 0 nor the number of received bytes.
            DiskFullError: There is not enough disk space for the rest.
        """
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        try:
            async with lock:
                if self._blobs.touch(sha256):
                    yield None
                    return
                received = self.received_bytes(sha256)
                if offset not in (0, received):
                    raise OffsetOutOfRangeError(
                        "header.offset",
                        f"header.offset is {offset}, but {received} bytes have arrived. Continue at {received}",
                        offset=offset,
                        received_bytes=received,
                    )
                self._disk_space.require_for_new_work(size - offset)
                upload = Upload(self._blobs, self._part(sha256), sha256, size)
                await asyncio.to_thread(upload.open, offset)
                try:
                    yield upload
                finally:
                    await upload.close()
        finally:
            if not lock.locked():
                self._locks.pop(sha256, None)

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"


class Upload:
    """An upload of one tensor. A chunk is hashed and written while the next chunk is received."""

    def __init__(self, blobs: BlobStore, part: Path, sha256: str, size: int) -> None:
        self._blobs = blobs
        self._part = part
        self._sha256 = sha256
        self._size = size
        self._received = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._pending: asyncio.Future[None] | None = None

    @property
    def received_bytes(self) -> int:
        """The number of bytes that have arrived, including those before the offset."""
        return self._received

    def open(self, offset: int) -> None:
        """Open the file at `offset`, and hash the bytes before it. Blocks."""
        self._file = self._part.open("r+b" if self._part.exists() else "w+b")
        self._file.truncate(offset)
        while block := self._file.read(_READ_BYTES):
            self._digest.update(block)
        self._received = offset

    async def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            InvalidFieldsError: The chunk goes beyond the size of the tensor.
            DiskFullError: The disk is full. The received bytes are deleted.
        """
        if self._received + len(chunk) > self._size:
            raise invalid_field("chunk", f"goes beyond the {self._size} bytes of the tensor")
        self._received += len(chunk)
        await self._wait_for_pending()
        self._pending = asyncio.get_running_loop().run_in_executor(None, self._store, chunk)

    async def finish(self) -> bool:
        """Store the tensor as a blob if it is complete. Returns whether it is complete.

        Raises:
            DigestMismatchError: The digest of the bytes is wrong. The bytes are deleted.
        """
        await self._wait_for_pending()
        if self._received < self._size:
            return False
        if self._digest.hexdigest() != self._sha256:
            await asyncio.to_thread(self._part.unlink)
            raise DigestMismatchError(self._sha256, self._digest.hexdigest())
        await asyncio.to_thread(self._make_blob)
        return True

    async def close(self) -> None:
        """Close the file. The received bytes are kept."""
        await self._wait_for_pending()
        if self._file is not None:
            self._file.close()

    async def _wait_for_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            await pending

    def _store(self, chunk: bytes) -> None:
        assert self._file is not None
        try:
            with disk_full_errors():
                self._file.write(chunk)
        except DiskFullError:
            self._file.truncate(0)  # Delete the received bytes, because they use space on the full disk.
            raise
        self._digest.update(chunk)

    def _make_blob(self) -> None:
        assert self._file is not None
        with disk_full_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
        self._blobs.adopt(self._sha256, self._part)
