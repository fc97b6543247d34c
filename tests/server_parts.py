"""The server components that read and write jobs, without the API and Ray."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, Job
from gradwire_server.jobs.admission import AdmittedJob
from gradwire_server.jobs.attempt_records import AttemptRecords
from gradwire_server.jobs.commands import JobCommands
from gradwire_server.jobs.event_log import EventLog
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord

NOW = 1_700_000_000


@dataclass(frozen=True)
class Jobs:
    """The server components that read and write jobs."""

    notifier: JobNotifier
    queries: JobQueries
    commands: JobCommands
    records: AttemptRecords

    async def create(
        self,
        job_id: str = "a",
        request_id: str = "",
        check_stored: Callable[[Connection], None] = lambda _connection: None,
        **fields: object,
    ) -> Job:
        """Create a job without checking it."""
        job = Job(**{"spec": JobSpec(epochs=3), **fields})
        request = CreateJobRequest(job=job, job_id=job_id, request_id=request_id)
        return await self.commands.create(
            OPERATOR, AdmittedJob(job, classification=True, check_stored=check_stored), request
        )

    async def start(self, job_id: str = "a") -> JobRecord:
        """Create a job and start its first attempt."""
        await self.create(job_id)
        return await self.records.start_attempt((await self.queries.get(OPERATOR, f"jobs/{job_id}")).job_key)


def open_jobs(database: Database, lease: Lease) -> Jobs:
    """Create the components for a database."""
    notifier = JobNotifier(database.notifications)
    log = EventLog(database, notifier, clock=lambda: NOW * 10**9)
    queries = JobQueries(database, notifier)
    return Jobs(notifier, queries, JobCommands(log, queries), AttemptRecords(log, lease.check))


@contextlib.asynccontextmanager
async def blocked_writes(database: Database) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Block all writes within the context. Yields a function that waits until a write is blocked."""
    started, gate = threading.Event(), threading.Event()

    def block(_connection: Connection) -> None:
        started.set()
        gate.wait(30)

    async def next_write() -> None:
        while not database._writes.qsize():
            await asyncio.sleep(0.001)

    blocked = asyncio.create_task(database.write(block))
    await asyncio.to_thread(started.wait)
    try:
        yield next_write
    finally:
        gate.set()
        await blocked
