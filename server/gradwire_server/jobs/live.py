"""Streams the current state of jobs as they change. The cost of a response does not depend on how often they change."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import ShuttingDownError
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.principal import Principal
from gradwire_server.resource_names import id_in
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.notifications import JobChange

# The time between two responses. The changes in between are sent together.
_INTERVAL_SECONDS = 0.05
# The maximum number of jobs in one stream. If new jobs exceed it, the jobs that changed last are kept.
_MAX_WATCHED = 200


@dataclass(frozen=True)
class Changes:
    """Jobs that changed, without their specs, and the names of jobs that were deleted."""

    jobs: Sequence[Job]
    deleted: Sequence[str]


class LiveJobs:
    """Watches any number of jobs with one stream."""

    def __init__(self, database: Database, notifier: JobNotifier) -> None:
        self._database = database
        self._notifier = notifier

    async def watch(
        self, _principal: Principal, names: Sequence[str], include_new: bool
    ) -> AsyncGenerator[Changes, None]:
        """Yield the current state of the named jobs, and then the jobs that change.

        Args:
            names: The names of the jobs.
            include_new: Whether jobs that are created from now on are watched too.

        Raises:
            ShuttingDownError: The server is shutting down. The client can continue on another server.
        """
        watch = _Watch(include_new)
        with self._notifier.observed(watch.on_change):
            found, watch.newest_key = await self._database.read(lambda connection: _find(connection, names))
            watch.names = {key: name for name, key in found.items()}
            changes = await self._read(watch, set(watch.names))
            yield Changes(changes.jobs, [*(name for name in names if name not in found), *changes.deleted])
            while True:
                await asyncio.sleep(_INTERVAL_SECONDS)
                if not self._notifier.closed:
                    await watch.changed()
                if self._notifier.closed:
                    raise ShuttingDownError
                changes = await self._read(watch, watch.take())
                if changes.jobs or changes.deleted:
                    yield changes

    async def _read(self, watch: "_Watch", keys: set[int]) -> Changes:
        """Return the current state of the jobs with these keys."""
        if not keys:
            return Changes([], [])
        current = await self._database.read(lambda connection: job_queries.current_jobs(connection, keys))
        for key, job in current:
            job.ClearField("spec")
            watch.names[key] = job.name
        gone = (watch.names.pop(key, "") for key in sorted(keys - {key for key, _ in current}))
        return Changes([job for _, job in current], [name for name in gone if name])


class _Watch:
    """Collects which of the watched jobs have changed.

    Attributes:
        names: The watched jobs: their names by their keys. The name of a new job is empty until it is read.
        newest_key: Jobs with larger keys are new.
    """

    def __init__(self, include_new: bool) -> None:
        self.names: dict[int, str] = {}
        self.newest_key: int | None = None
        self._include_new = include_new
        self._changed: set[int] = set()
        self._event = asyncio.Event()

    def on_change(self, change: JobChange | None) -> None:
        """Note a change, or that changes of all jobs may have been missed."""
        if change is None:
            self._changed |= set(self.names)
        elif change.job_key in self.names:
            self._changed.add(change.job_key)
        elif self._include_new and self.newest_key is not None and change.job_key > self.newest_key:
            if len(self.names) >= _MAX_WATCHED:
                del self.names[next(iter(self.names))]
            self.names[change.job_key] = ""
            self._changed.add(change.job_key)
        else:
            return
        self._event.set()

    def take(self) -> set[int]:
        """Return the keys of the jobs that have changed since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    async def changed(self) -> None:
        """Wait for a change since the last call."""
        await self._event.wait()
        self._event.clear()


def _find(connection: Connection, names: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return the keys of the named jobs that exist, and the key of the newest job."""
    names_by_id = {job_id: name for name in names if (job_id := id_in("jobs", name)) is not None}
    keys = job_queries.keys_by_id(connection, list(names_by_id))
    return {names_by_id[job_id]: key for job_id, key in keys.items()}, job_queries.newest_key(connection)
