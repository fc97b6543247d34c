"""The parts of a server that read and write jobs, without the API and without Ray."""

from dataclasses import dataclass

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import Job
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
    """The parts of a server that read and write jobs."""

    notifier: JobNotifier
    queries: JobQueries
    commands: JobCommands
    records: AttemptRecords

    async def create(self, job_id: str = "a", request_id: str = "", **fields: object) -> Job:
        """Create a job without checking it."""
        job = Job(**{"spec": JobSpec(epochs=3), **fields})
        return await self.commands.create(OPERATOR, AdmittedJob(job, classification=True), job_id, request_id)

    async def start(self, job_id: str = "a") -> JobRecord:
        """Create a job and start its first attempt."""
        await self.create(job_id)
        return await self.records.start_attempt((await self.queries.get(OPERATOR, f"jobs/{job_id}")).job_key)


def open_jobs(database: Database, lease: Lease) -> Jobs:
    """Return the parts of a server on a database."""
    notifier = JobNotifier(database.notifications)
    log = EventLog(database, notifier, clock=lambda: NOW * 10**9)
    queries = JobQueries(database, notifier)
    return Jobs(notifier, queries, JobCommands(log, queries), AttemptRecords(log, lease.check))
