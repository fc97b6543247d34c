"""Uploads under way: chunks go to a file, hashed as they come, and a file that is whole and right becomes a blob."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from gradwire_server.errors import ServiceError, data_loss, invalid_argument, out_of_range
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.disk_space import Room, refusing_when_full

_READ_BYTES = 1 << 22


class Uploads:
    """What has arrived of each digest. Two uploads of the same digest take turns."""

    def __init__(self, blobs: BlobStore, folder: Path, room: Room) -> None:
        self._blobs = blobs
        self._room = room
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._locks: dict[str, asyncio.Lock] = {}

    def received_bytes(self, sha256: str) -> int:
        """How much of an upload that has not ended has arrived."""
        part = self._part(sha256)
        return part.stat().st_size if part.exists() else 0

    @asynccontextmanager
    async def receive(self, sha256: str, size: int, offset: int) -> AsyncIterator["Upload | None"]:
        """Go on with an upload at `offset`, which must be what has arrived; None if the blob is there already."""
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        try:
            async with lock:
                if self._blobs.keep(sha256):
                    yield None
                    return
                received = self.received_bytes(sha256)
                if offset not in (0, received):
                    raise out_of_range(
                        "header.offset", f"is {offset}, but {received} bytes have arrived: go on from there"
                    )
                self._room.refuse_new_work(size - offset)
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
    """One tensor that is arriving. Hashing and writing run beside the network: one chunk behind it, never more."""

    def __init__(self, blobs: BlobStore, part: Path, sha256: str, size: int) -> None:
        self._blobs = blobs
        self._part = part
        self._sha256 = sha256
        self._size = size
        self._received = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._pending: asyncio.Future[None] | None = None

    def open(self, offset: int) -> None:
        """Open the file at `offset`, and hash what is there before it. Blocks."""
        self._file = self._part.open("r+b" if self._part.exists() else "w+b")
        self._file.truncate(offset)
        while block := self._file.read(_READ_BYTES):
            self._digest.update(block)
        self._received = offset

    async def write(self, chunk: bytes) -> None:
        """Take the next chunk."""
        if self._received + len(chunk) > self._size:
            raise invalid_argument([("chunk", f"brings more than the {self._size} bytes that the tensor has")])
        self._received += len(chunk)
        await self._settle()
        self._pending = asyncio.get_running_loop().run_in_executor(None, self._store, chunk)

    async def finish(self) -> bool:
        """Make the tensor a blob if all of it has arrived; whether it has. DATA_LOSS if the digest is another."""
        await self._settle()
        if self._received < self._size:
            return False
        if self._digest.hexdigest() != self._sha256:
            await asyncio.to_thread(self._part.unlink)
            raise data_loss(
                f"the bytes that arrived have the digest {self._digest.hexdigest()}, not {self._sha256}; "
                "they were thrown away: upload them again from offset 0"
            )
        await asyncio.to_thread(self._adopt)
        return True

    async def close(self) -> None:
        """Close the file; what has arrived stays."""
        await self._settle()
        if self._file is not None:
            self._file.close()

    async def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            await pending

    def _store(self, chunk: bytes) -> None:
        assert self._file is not None
        try:
            with refusing_when_full():
                self._file.write(chunk)
        except ServiceError:
            self._file.truncate(0)  # What has arrived is part of what fills the disk.
            raise
        self._digest.update(chunk)

    def _adopt(self) -> None:
        assert self._file is not None
        with refusing_when_full():
            self._file.flush()
            os.fsync(self._file.fileno())
        self._blobs.adopt(self._sha256, self._part)
