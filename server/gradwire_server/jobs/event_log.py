"""Writes to jobs: each is one transaction that stores a job with its new events, and then publishes the change."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState
from gradwire_server.jobs import events
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.store import job_queries, model_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.store.notifications import JobChange

T = TypeVar("T")


class EventLog:
    """The append-only logs of all jobs. An event is visible only after it is durable."""

    def __init__(self, database: Database, notifier: JobNotifier, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock` returns the time in nanoseconds since 1970."""
        self._database = database
        self._notifier = notifier
        self._clock = clock
        self._writing: set[asyncio.Task[JobRecord]] = set()

    async def write(
        self, work: Callable[[Connection], JobRecord], *, start: bool = False, stop: bool = False
    ) -> JobRecord:
        """Run `work` in a transaction and publish the change of the job that it returns.

        Args:
            work: Changes one job.
            start: Whether the scheduler may have something to start.
            stop: Whether the scheduler must stop the running attempt of the job.
        """

        def work_and_announce(connection: Connection) -> tuple[JobRecord, JobChange]:
            record = work(connection)
            change = JobChange(record.job_key, start, stop)
            self._notifier.announce(connection, change)
            return record, change

        # The write is committed even if the caller is cancelled, so the change must be published even then.
        task = asyncio.create_task(self._write_and_publish(work_and_announce))
        self._writing.add(task)
        task.add_done_callback(self._end_write)
        return await asyncio.shield(task)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on what is durable."""
        return await self._database.read(query)

    async def _write_and_publish(self, work: Callable[[Connection], tuple[JobRecord, JobChange]]) -> JobRecord:
        record, change = await self._database.write(work)
        self._notifier.publish(change)
        return record

    def _end_write(self, task: asyncio.Task[JobRecord]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            # If the caller is gone, nobody else retrieves the exception, and asyncio would log it as an error.
            task.exception()

    def now(self) -> int:
        """Return the time in nanoseconds since 1970."""
        return self._clock()

    def append(self, connection: Connection, record: JobRecord, new: Sequence[Event]) -> None:
        """Number the events, apply them to the job, and store both. A job that succeeds gets its model."""
        now = self._clock()
        checkpoint: Checkpoint | None = None
        for event in new:
            record.job.last_sequence += 1
            event.sequence, event.attempt = record.job.last_sequence, record.job.attempt
            event.time.FromNanoseconds(now)
            if event.HasField("checkpoint"):
                checkpoint = event.checkpoint
            if event.state_change.state == JobState.JOB_STATE_SUCCEEDED:
                final = checkpoint or job_queries.last_checkpoint(connection, record.job_key)
                model = events.trained_model(record.job, record.job_id, final, now)
                model_queries.insert_model(connection, record.job_id, model)
                event.state_change.model = model.name
            events.apply(event, record.job)
        job_queries.insert_events(connection, record.job_key, new)
        job_queries.save_job(connection, record)
