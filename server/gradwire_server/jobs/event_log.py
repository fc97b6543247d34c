"""Stores a job together with its new events in one transaction and then publishes the change."""

import asyncio
import logging
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

_log = logging.getLogger(__name__)

T = TypeVar("T")


class EventLog:
    """The append-only logs of all jobs. Events are visible only after they are durable."""

    def __init__(self, database: Database, notifier: JobNotifier, clock: Callable[[], int] = time.time_ns) -> None:
        """Create the log. `clock` is a function that returns the time in nanoseconds since 1970."""
        self._database = database
        self._notifier = notifier
        self._clock = clock
        self._writing: set[asyncio.Task[JobRecord]] = set()

    async def write(
        self,
        work: Callable[[Connection], JobRecord],
        *,
        start: bool = False,
        stop: bool = False,
        finish: bool = False,
    ) -> JobRecord:
        """Run `work` in a transaction, and publish and log the change to the job that it returns.

        Args:
            work: A function that changes one job.
            start: Whether the scheduler may be able to start a job.
            stop: Whether the scheduler must stop the running attempt of the job.
            finish: Whether the running attempt must end the job after the current epoch.
        """

        def work_and_announce(connection: Connection) -> tuple[JobRecord, JobChange]:
            record = work(connection)
            change = JobChange(record.job_key, start, stop, finish)
            self._notifier.announce(connection, change)
            return record, change

        # The write is committed even if the caller is cancelled, so the change must be published even then.
        task = asyncio.create_task(self._write_and_publish(work_and_announce))
        self._writing.add(task)
        task.add_done_callback(self._end_write)
        return await asyncio.shield(task)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on durable data."""
        return await self._database.read(query)

    async def _write_and_publish(self, work: Callable[[Connection], tuple[JobRecord, JobChange]]) -> JobRecord:
        record, change = await self._database.write(work)
        self._notifier.publish(change)
        for event in record.state_changes:
            level = logging.WARNING if event.state_change.state == JobState.JOB_STATE_FAILED else logging.INFO
            # The log limits repeats for each job and state, so that the start and the end of every job are logged.
            subject = record.job.name, event.state_change.state
            _log.log(level, "%s", events.log_line(record.job, event), extra={"subject": subject})
        return record

    def _end_write(self, task: asyncio.Task[JobRecord]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            # If the caller was cancelled, no one else retrieves the exception, and asyncio would log an error.
            task.exception()

    def now(self) -> int:
        """Return the time in nanoseconds since 1970."""
        return self._clock()

    def create(self, connection: Connection, record: JobRecord, request_id: str) -> None:
        """Store a new job, which is queued, and its first event.

        Args:
            connection: A connection in a transaction.
            record: The job. This method sets its key.
            request_id: The ID of the client's request, or "".
        """
        queued = [events.state_change(JobState.JOB_STATE_QUEUED)]
        self._apply(connection, record, queued)
        job_queries.insert_job(connection, record, request_id)
        job_queries.insert_events(connection, record.job_key, queued)

    def append(self, connection: Connection, record: JobRecord, new: Sequence[Event]) -> None:
        """Number the events, apply them to the job, and store both. If the job succeeds, store its model."""
        self._apply(connection, record, new)
        job_queries.insert_events(connection, record.job_key, new)
        job_queries.save_job(connection, record)

    def _apply(self, connection: Connection, record: JobRecord, new: Sequence[Event]) -> None:
        now = self._clock()
        checkpoints: dict[int, Checkpoint] = {}
        updater = events.JobUpdater(record.job)
        for event in new:
            record.job.last_sequence += 1
            event.sequence, event.attempt = record.job.last_sequence, record.job.attempt
            event.time.FromNanoseconds(now)
            if event.HasField("checkpoint"):
                checkpoints[event.checkpoint.epoch] = event.checkpoint
            if event.state_change.state == JobState.JOB_STATE_SUCCEEDED:
                epoch = events.model_epoch(record.job).epoch
                final = checkpoints.get(epoch) or job_queries.checkpoint_of(connection, record.job_key, epoch)
                model = events.trained_model(record.job, record.job_id, final, now)
                model_queries.insert_model(connection, record.job_id, model)
                event.state_change.model = model.name
            updater.apply(event)
            if event.HasField("state_change"):
                record.state_changes.append(event)
