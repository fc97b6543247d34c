"""Collects what nothing needs any more: blobs that no job or model names, broken-off uploads, forgotten checkpoints."""

import asyncio
import logging
from pathlib import PurePosixPath
from typing import NoReturn

from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.store import queries
from gradwire_server.store.database import Database

_log = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600.0


class Collector:
    """Sweeps the blob store now and then. Only the server that schedules does so."""

    def __init__(self, database: Database, blobs: BlobStore, checkpoints: Checkpoints) -> None:
        self._database = database
        self._blobs = blobs
        self._checkpoints = checkpoints

    async def run(self) -> NoReturn:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep()
            except Exception:  # Whatever the blob store's library raises: the next sweep may do better.
                _log.exception("the blob store was not swept")

    async def sweep(self) -> int:
        """Delete what is not needed and was not touched for a day; return how many files that were."""
        # First the files, then what names them: what is uploaded in between is not looked at.
        paths = await asyncio.to_thread(self._blobs.old_files)
        named = await self._database.read(queries.named_tensors)
        numbers = await self._database.read(queries.job_numbers)
        unneeded = [path for path in paths if self._is_unneeded(path, named, numbers)]
        deleted = await asyncio.to_thread(lambda: sum(map(self._blobs.delete_if_old, unneeded)))
        if deleted:
            _log.info("%d files that nothing needs were deleted", deleted)
        return deleted

    def _is_unneeded(self, path: str, named: set[str], numbers: set[int]) -> bool:
        """Whether a file of that age is of no use: anything but a blob that is named, or a checkpoint of a job."""
        job = self._checkpoints.job_of(path)
        if job is not None:
            return job not in numbers
        if self._blobs.is_staged(path):
            return True
        return self._blobs.is_blob(path) and PurePosixPath(path).name not in named
