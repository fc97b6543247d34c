"""Deletes what is unreferenced: unused blobs, interrupted uploads, and checkpoints and events of deleted jobs."""

import asyncio
import logging
import time
from functools import partial
from pathlib import PurePosixPath
from typing import NoReturn

from gradwire_server.errors import DomainError
from gradwire_server.storage.blob_store import RETENTION_SECONDS, TIGHT_RETENTION_SECONDS, BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.store import job_queries, tensor_queries
from gradwire_server.store.database import Database

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 3600.0
# The time between checks for a nearly full disk, and the time between collections while it is nearly full.
_CHECK_SECONDS = 5.0
_TIGHT_INTERVAL_SECONDS = 60.0
# The number of events to delete in one transaction. It is low because other writes wait for the transaction.
_EVENTS_PER_TRANSACTION = 5_000


class GarbageCollector:
    """Collects garbage in the blob store. It runs only on the scheduling server."""

    def __init__(
        self, database: Database, blobs: BlobStore, checkpoints: CheckpointStore, disk_space: DiskSpace
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._checkpoints = checkpoints
        self._disk_space = disk_space

    async def run(self) -> NoReturn:
        """Until cancelled, collect once an hour, and immediately when the disk is nearly full.

        The events of deleted jobs are deleted within seconds.
        """
        collected = time.monotonic()
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            await self._delete_events_of_deleted_jobs()
            waited = time.monotonic() - collected
            # The blobs of an object store are on other disks.
            tight = waited > _TIGHT_INTERVAL_SECONDS and self._blobs.is_local and self._disk_space.is_tight()
            if not tight and waited < _INTERVAL_SECONDS:
                continue
            try:
                await self.collect(TIGHT_RETENTION_SECONDS if tight else RETENTION_SECONDS)
            except Exception:  # The file system library can raise any exception. The next run may succeed.
                _log.exception("cannot collect garbage in the blob store")
            collected = time.monotonic()

    async def _delete_events_of_deleted_jobs(self) -> None:
        try:
            while (job_key := await self._database.read(job_queries.first_deleted_job)) is not None:
                delete = partial(job_queries.delete_some_events, job_key=job_key, most=_EVENTS_PER_TRANSACTION)
                while not await self._database.write(delete):
                    pass
        except DomainError as error:
            _log.warning("cannot delete the events of a deleted job: %s", error)

    async def collect(self, seconds: float = RETENTION_SECONDS) -> int:
        """Delete unreferenced files that have not been used for some seconds. Returns the number of deleted files."""
        # List the files before the references, so that files that are uploaded in between are not considered.
        paths = await asyncio.to_thread(self._blobs.unused_files, seconds)
        referenced = await self._database.read(tensor_queries.referenced_tensors)
        job_keys = await self._database.read(job_queries.job_keys)
        garbage = [path for path in paths if self._is_garbage(path, referenced, job_keys)]
        deleted = await asyncio.to_thread(lambda: sum(self._blobs.delete_if_unused(path, seconds) for path in garbage))
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
