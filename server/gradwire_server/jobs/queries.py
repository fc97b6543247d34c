"""The client queries for jobs."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from sqlalchemy import Connection

from gradwire_proto.v1.training_service_pb2 import Event, Job
from gradwire_server.errors import JobNotFoundError, SequenceOutOfRangeError, ShuttingDownError
from gradwire_server.jobs.events import TERMINAL_STATES, has_ended
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.jobs.samples import sample
from gradwire_server.principal import Principal
from gradwire_server.resource_names import id_in
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.store.paging import Page

# The number of events that a watch reads at a time. It is small, so that slow clients use little memory.
_MAX_EVENTS_PER_READ = 250
# The maximum number of reads of all watches at a time. Other calls then wait for a few of these reads, not for those of
# a thousand watches.
_MAX_WATCH_READS = 2
# The maximum number of state changes and warnings that a call returns.
_MAX_CHANGES_AND_WARNINGS = 200


class JobQueries:
    """Reads jobs and watches their logs. Any server can answer these queries."""

    def __init__(self, database: Database, notifier: JobNotifier) -> None:
        self._database = database
        self._notifier = notifier
        self._watch_reads = asyncio.Semaphore(_MAX_WATCH_READS)

    async def get(self, _principal: Principal, job_name: str) -> JobRecord:
        """Return the job with the name "jobs/{job_id}", or raise JobNotFoundError."""
        job_id = id_in("jobs", job_name)
        if job_id is None:
            raise JobNotFoundError(job_name)
        record = await self._database.read(lambda connection: job_queries.find_job(connection, job_id))
        if record is None:
            raise JobNotFoundError(job_name)
        return record

    async def find_by_request(self, _principal: Principal, request_id: str) -> Job | None:
        """Return the job that an earlier request with this ID created, or None."""
        record = await self._database.read(lambda connection: job_queries.find_job_by_request(connection, request_id))
        return None if record is None else record.job

    async def list(self, _principal: Principal, page: Page) -> tuple[Sequence[Job], str]:
        """Return a page of jobs and the token of the next page."""
        return await self._database.read(lambda connection: job_queries.list_jobs(connection, page))

    async def watch(
        self, principal: Principal, job_name: str, after_sequence: int
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a job after a sequence number, including new events, until the job ends.

        Raises:
            JobNotFoundError: The job does not exist, or was deleted while it was watched.
            SequenceOutOfRangeError: The job does not have an event with this number.
            ShuttingDownError: The server is shutting down. The client can continue on another server.
        """
        async with self._watch_reads:
            record = await self.get(principal, job_name)
        last_sequence = record.job.last_sequence
        if not 0 <= after_sequence <= last_sequence:
            raise SequenceOutOfRangeError(job_name, after_sequence, last_sequence)
        if has_ended(record.job) and after_sequence == last_sequence:
            return
        with self._notifier.watching(record.job_key) as watch:
            while True:
                async with self._watch_reads:
                    new = await self._events_after(record, after_sequence)
                if self._notifier.closed:
                    raise ShuttingDownError
                if not new:
                    await watch.changed()
                    continue
                yield new
                after_sequence = new[-1].sequence
                if new[-1].state_change.state in TERMINAL_STATES:
                    return
                if len(new) < _MAX_EVENTS_PER_READ:
                    await watch.changed()

    async def sample_epochs(
        self, principal: Principal, job_name: str, first: int, last: int, most: int
    ) -> tuple[Sequence[Event], bool]:
        """Return the events of at most `most` evenly spaced epochs, and whether these are all epochs in the range.

        The range ends with the epochs `first` and `last`. 0 means the first and the last epoch of the job.

        Raises:
            JobNotFoundError: The job does not exist.
        """
        record = await self.get(principal, job_name)
        stored = record.job.last_epoch.epoch
        first = max(first, record.job.initial_epoch + 1)
        last = min(last or stored, stored)
        numbers = sample(first, last, most, record.job.spec.evaluate_every)
        epochs = await self._database.read(
            lambda connection: job_queries.epochs_among(connection, record.job_key, numbers)
        )
        return epochs, len(numbers) == last - first + 1

    async def changes_and_warnings(self, principal: Principal, job_name: str) -> Sequence[Event]:
        """Return the newest state changes and warnings of a job, in order, or raise JobNotFoundError."""
        record = await self.get(principal, job_name)
        return await self._database.read(
            lambda connection: job_queries.newest_changes_and_warnings(
                connection, record.job_key, _MAX_CHANGES_AND_WARNINGS
            )
        )

    async def _events_after(self, record: JobRecord, sequence: int) -> Sequence[Event]:
        def work(connection: Connection) -> Sequence[Event]:
            new = job_queries.events_after(connection, record.job_key, sequence, _MAX_EVENTS_PER_READ)
            if not new and not job_queries.job_exists(connection, record.job_key):
                raise JobNotFoundError(record.job.name)
            return new

        return await self._database.read(work)
