"""Deletes unreferenced files: unused blobs, interrupted uploads, and checkpoints of deleted jobs."""

import asyncio
import logging
from pathlib import PurePosixPath
from typing import NoReturn

from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.store import job_queries, tensor_queries
from gradwire_server.store.database import Database

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 3600.0


class GarbageCollector:
    """Collects garbage in the blob store. It runs only on the scheduling server."""

    def __init__(self, database: Database, blobs: BlobStore, checkpoints: CheckpointStore) -> None:
        self._database = database
        self._blobs = blobs
        self._checkpoints = checkpoints

    async def run(self) -> NoReturn:
        """Collect once an hour until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self.collect()
            except Exception:  # The file system library can raise any exception. The next run may succeed.
                _log.exception("cannot collect garbage in the blob store")

    async def collect(self) -> int:
        """Delete unreferenced files that have not been used for a day, and return the number of deleted files."""
        # List the files before the references, so that files that are uploaded in between are not considered.
        paths = await asyncio.to_thread(self._blobs.unused_files)
        referenced = await self._database.read(tensor_queries.referenced_tensors)
        job_keys = await self._database.read(job_queries.job_keys)
        garbage = [path for path in paths if self._is_garbage(path, referenced, job_keys)]
        deleted = await asyncio.to_thread(lambda: sum(map(self._blobs.delete_if_unused, garbage)))
        if deleted:
            _log.info("deleted %d unreferenced files", deleted)
        return deleted

    def _is_garbage(self, path: str, referenced: set[str], job_keys: set[int]) -> bool:
        """Return whether an unused file is neither a referenced blob nor a checkpoint of an existing job."""
        job_key = self._checkpoints.job_key_of(path)
        if job_key is not None:
            return job_key not in job_keys
        if self._blobs.is_staged(path):
            return True
        return self._blobs.is_blob(path) and PurePosixPath(path).name not in referenced
