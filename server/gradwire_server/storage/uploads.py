"""Receives uploads. Chunks are hashed and written as they arrive, and complete files become blobs."""

import asyncio
import hashlib
import itertools
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from gradwire_server.errors import DigestMismatchError, DiskFullError, OffsetOutOfRangeError, invalid_field
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.disk_space import DiskSpace, disk_full_errors
from gradwire_server.threads import in_thread

_READ_BYTES = 1 << 22
# If nothing has arrived from an upload for this long, in seconds, another upload can continue it. Its connection is
# probably lost, even if the server has not noticed yet.
_STALLED_SECONDS = 5.0


class Uploads:
    """The tensors that are being uploaded.

    Each upload writes to its own file, so that uploads do not wait for each other, even if they send the same tensor.
    If uploads of a tensor are interrupted, the longest received part is kept, and another upload can continue it.
    """

    def __init__(self, blobs: BlobStore, folder: Path, disk_space: DiskSpace) -> None:
        self._blobs = blobs
        self._disk_space = disk_space
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._active: dict[str, list[Upload]] = {}
        self._numbers = itertools.count()
        for left in folder.glob("*.active"):  # The server was killed during these uploads.
            self._keep(left.name.partition(".")[0], left)

    def received_bytes(self, sha256: str) -> int:
        """Return the number of bytes of a tensor that have arrived, after which an upload can continue."""
        stalled = (each.received_bytes for each in self._active.get(sha256, ()) if each.is_stalled)
        return max(_size(self._part(sha256)), *stalled, 0)

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
        if await in_thread(self._blobs.touch, sha256):
            yield None
            return
        self._disk_space.require_for_new_work(size - offset)
        file = self._folder / f"{sha256}.{next(self._numbers)}.active"
        if offset:
            await self._claim(sha256, offset, file)
        upload = Upload(self._blobs, file, sha256, size)
        active = self._active.setdefault(sha256, [])
        active.append(upload)
        try:
            await in_thread(upload.open, offset)
            yield upload
        finally:
            active.remove(upload)
            if not active:
                self._active.pop(sha256, None)
            try:
                await upload.close()
            finally:
                self._end(upload, active)

    async def _claim(self, sha256: str, offset: int, file: Path) -> None:
        """Move the part of a tensor that an upload continues to the file of that upload."""
        if _size(self._part(sha256)) == offset:
            self._part(sha256).rename(file)
            return
        for other in self._active.get(sha256, ()):
            if other.is_stalled and other.received_bytes == offset:
                other.is_taken_over = True
                await other.close()
                other.file.rename(file)
                return
        received = self.received_bytes(sha256)
        raise OffsetOutOfRangeError(
            "header.offset",
            f"header.offset is {offset}, but {received} bytes have arrived. Continue at {received}",
            offset=offset,
            received_bytes=received,
        )

    def _end(self, upload: "Upload", others: "list[Upload]") -> None:
        if upload.is_stored:
            for other in others:
                other.is_stored = True
            upload.file.unlink(missing_ok=True)
        elif not upload.is_taken_over:
            self._keep(upload.sha256, upload.file)

    def _keep(self, sha256: str, file: Path) -> None:
        """Keep the part that an interrupted upload received, if it is longer than the part that is already kept."""
        if _size(file) > _size(self._part(sha256)):
            file.replace(self._part(sha256))
        else:
            file.unlink(missing_ok=True)

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"


class Upload:
    """The upload of one tensor. While a chunk is hashed and written, the next chunk is received, but no further chunks.

    Attributes:
        sha256: The digest of the tensor.
        file: The file that contains the received bytes.
        is_stored: Whether the tensor is stored as a blob, by this upload or another one.
        is_taken_over: Whether another upload has continued this one.
    """

    def __init__(self, blobs: BlobStore, file: Path, sha256: str, size: int) -> None:
        self.sha256 = sha256
        self.file = file
        self.is_stored = False
        self.is_taken_over = False
        self._blobs = blobs
        self._size = size
        self._received = 0
        self._last_chunk = time.monotonic()
        self._digest = hashlib.sha256()
        self._open_file: BinaryIO | None = None
        self._pending: asyncio.Future[None] | None = None

    @property
    def received_bytes(self) -> int:
        """The number of bytes that have arrived, including those before the offset."""
        return self._received

    @property
    def is_stalled(self) -> bool:
        """Whether the upload has received nothing for a while."""
        written = self._pending is None or self._pending.done()
        return written and not self.is_taken_over and time.monotonic() - self._last_chunk > _STALLED_SECONDS

    def open(self, offset: int) -> None:
        """Open the file at `offset` and hash the bytes before it. Blocks."""
        # The server does not follow links, which could point to a file that another user chose.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        if not offset:
            self.file.unlink(missing_ok=True)
            flags |= os.O_CREAT | os.O_EXCL
        self._open_file = os.fdopen(os.open(self.file, flags, 0o600), "r+b")
        while block := self._open_file.read(_READ_BYTES):
            self._digest.update(block)
        self._received = offset
        self._last_chunk = time.monotonic()

    async def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            InvalidFieldsError: The chunk is empty or goes beyond the size of the tensor.
            OffsetOutOfRangeError: Another upload has continued this one.
            DiskFullError: The disk is full. The received bytes are deleted.
        """
        if not chunk:
            raise invalid_field("chunk", "must not be empty")
        if self._received + len(chunk) > self._size:
            raise invalid_field("chunk", f"goes beyond the {self._size} bytes of the tensor")
        if self.is_stored:
            return  # Another client was faster. Ending the call now would confuse clients that are still sending.
        if self.is_taken_over:
            text = f"another upload of this tensor continued at offset {self._received}, after this one had stalled"
            raise OffsetOutOfRangeError("chunk", text, offset=self._received, received_bytes=0)
        self._last_chunk = time.monotonic()
        self._received += len(chunk)
        await self._wait_for_pending()
        self._pending = asyncio.ensure_future(in_thread(self._store, chunk))

    async def finish(self) -> bool:
        """Store the tensor as a blob if it is complete. Returns whether it is complete.

        Raises:
            DigestMismatchError: The digest of the bytes is wrong. The bytes are deleted.
        """
        await self._wait_for_pending()
        if self.is_stored:
            return True
        if self._received < self._size:
            return False
        if self._digest.hexdigest() != self.sha256:
            await in_thread(self.file.unlink)
            raise DigestMismatchError(self.sha256, self._digest.hexdigest())
        await in_thread(self._make_blob)
        self.is_stored = True
        return True

    async def close(self) -> None:
        """Close the file. The received bytes are kept."""
        await self._wait_for_pending()
        if self._open_file is not None:
            self._open_file.close()

    async def _wait_for_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            await pending

    def _store(self, chunk: bytes) -> None:
        assert self._open_file is not None
        try:
            with disk_full_errors():
                self._open_file.write(chunk)
        except DiskFullError:
            self._open_file.truncate(0)  # The received bytes take up space on the full disk.
            raise
        self._digest.update(chunk)

    def _make_blob(self) -> None:
        assert self._open_file is not None
        with disk_full_errors():
            self._open_file.flush()
            os.fsync(self._open_file.fileno())
        self._blobs.adopt(self.sha256, self.file)


def _size(file: Path) -> int:
    """Return the size of a file in bytes. The size is 0 if the file does not exist or is a link."""
    try:
        found = file.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
