"""The quota of stored tensors."""

import asyncio
import time

from gradwire_server.errors import TensorQuotaError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.threads import in_thread

# The store is measured again after this many seconds. Until then, the sizes of new uploads are added.
_MEASURE_SECONDS = 10.0


class TensorQuota:
    """Limits the bytes in the blob store."""

    def __init__(self, blobs: BlobStore, max_bytes: int) -> None:
        """Limit the store `blobs` to `max_bytes` bytes. 0 means no limit."""
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._measured = -_MEASURE_SECONDS
        self._stored = 0
        self._measuring = asyncio.Lock()

    async def require(self, sha256: str, size: int) -> None:
        """Check that a tensor fits.

        Args:
            sha256: The digest of the tensor. A tensor that is already stored always fits.
            size: The number of bytes to be uploaded.

        Raises:
            TensorQuotaError: The tensor does not fit.
        """
        if not self._max_bytes or await in_thread(self._blobs.has, sha256):
            return
        async with self._measuring:
            if time.monotonic() - self._measured >= _MEASURE_SECONDS:
                self._stored = await in_thread(self._blobs.stored_bytes)
                self._measured = time.monotonic()
        if self._stored + size > self._max_bytes:
            raise TensorQuotaError(size, self._stored, self._max_bytes)
        self._stored += size

    def forget(self) -> None:
        """Measure the store again for the next tensor, because something was deleted."""
        self._measured = -_MEASURE_SECONDS
