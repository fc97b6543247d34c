"""The client commands: create, pause, resume, stop, cancel and delete jobs. Any server can execute these commands."""

import logging
import secrets

from sqlalchemy import Connection

from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, Job, JobState
from gradwire_server.errors import (
    JobAlreadyExistsError,
    JobEndedError,
    JobNotEndedError,
    JobNotFoundError,
    JobNotPausedError,
    ModelAlreadyExistsError,
)
from gradwire_server.jobs.admission import AdmittedJob
from gradwire_server.jobs.event_log import EventLog
from gradwire_server.jobs.events import has_ended, state_change, state_name
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.jobs.repeated_requests import check_repeated
from gradwire_server.principal import Principal
from gradwire_server.store import job_queries, tensor_queries
from gradwire_server.store.job_queries import JobRecord

_log = logging.getLogger(__name__)


class JobCommands:
    """Changes jobs for clients, each in one transaction. Every command except `delete` can be repeated."""

    def __init__(self, log: EventLog, queries: JobQueries) -> None:
        self._log = log
        self._queries = queries

    async def create(self, _principal: Principal, admitted: AdmittedJob, request: CreateJobRequest) -> Job:
        """Add a job to the queue. A repeated request returns the job that the first request created.

        Args:
            admitted: The validated job.
            request: The original request of the client.

        Raises:
            TensorMissingError: A tensor of the job was deleted in the meantime.
            AlreadyExistsError: A job from another request, or the model of a deleted job, has this ID.
        """

        def work(connection: Connection) -> JobRecord:
            earlier = job_queries.find_job_by_request(connection, request.request_id)
            if earlier is not None:
                check_repeated(request, earlier.job)
                return earlier
            chosen = request.job_id or f"job-{secrets.token_hex(5)}"
            _check_free(connection, chosen)
            job = Job()
            job.CopyFrom(admitted.job)
            job.name = f"jobs/{chosen}"
            job.create_time.FromNanoseconds(self._log.now())
            # No tensor of the job can be deleted between this check and the end of the transaction.
            tensor_queries.lock_tensors(connection, to_delete=False)
            admitted.check_stored(connection)
            record = JobRecord(0, chosen, admitted.classification, workers_lost=0, crashes=0, last_report=0, job=job)
            self._log.create(connection, record, request.request_id)
            return record

        return (await self._log.write(work, start=True)).job

    async def check_free(self, _principal: Principal, job_id: str) -> None:
        """Raise AlreadyExistsError if a job or a model has this ID."""
        await self._log.read(lambda connection: _check_free(connection, job_id))

    async def cancel(self, principal: Principal, job_name: str) -> Job:
        """Cancel a job. If the job has ended, it is not changed."""
        found = await self._queries.get(principal, job_name)

        def work(connection: Connection) -> JobRecord:
            record = _lock(connection, found)
            if not has_ended(record.job):
                self._log.append(connection, record, [state_change(JobState.JOB_STATE_CANCELLED, "on request")])
            return record

        return (await self._log.write(work, stop=True)).job

    async def pause(self, principal: Principal, job_name: str) -> Job:
        """Pause a job. If the job is already paused, it is not changed. Raises JobEndedError."""
        found = await self._queries.get(principal, job_name)

        def work(connection: Connection) -> JobRecord:
            record = _lock(connection, found)
            if has_ended(record.job):
                raise JobEndedError(job_name, state_name(record.job), "Only a job that has not ended can be paused")
            if record.job.state != JobState.JOB_STATE_PAUSED:
                self._log.append(connection, record, [state_change(JobState.JOB_STATE_PAUSED, "on request")])
            return record

        return (await self._log.write(work, stop=True)).job

    async def resume(self, principal: Principal, job_name: str) -> Job:
        """Put a paused job back into the queue. If the job was already resumed, it is not changed.

        Raises:
            JobEndedError: The job has ended.
            JobNotPausedError: The job was never paused.
        """
        found = await self._queries.get(principal, job_name)

        def work(connection: Connection) -> JobRecord:
            record = _lock(connection, found)
            if has_ended(record.job):
                advice = "Create a job with continue_job to continue it"
                raise JobEndedError(job_name, state_name(record.job), advice)
            if record.job.state == JobState.JOB_STATE_PAUSED:
                self._log.append(connection, record, [state_change(JobState.JOB_STATE_QUEUED, "resumed on request")])
            elif not job_queries.was_paused(connection, record.job_key):
                raise JobNotPausedError(job_name, state_name(record.job))
            return record

        return (await self._log.write(work, start=True)).job

    async def stop(self, principal: Principal, job_name: str) -> Job:
        """End a job after its current epoch. A job that has ended does not change."""
        found = await self._queries.get(principal, job_name)

        def work(connection: Connection) -> JobRecord:
            record = _lock(connection, found)
            is_paused = record.job.state == JobState.JOB_STATE_PAUSED
            is_stopped = record.job.HasField("stop_request_time")
            if has_ended(record.job) or (is_stopped and not is_paused):
                return record
            if not is_stopped:
                record.job.stop_request_time.FromNanoseconds(self._log.now())
            # A worker has to finish a paused job, because its last epoch can be later than its last checkpoint.
            resumed = [state_change(JobState.JOB_STATE_QUEUED, "to be stopped on request")] if is_paused else []
            self._log.append(connection, record, resumed)
            return record

        return (await self._log.write(work, start=True, finish=True)).job

    async def delete(self, principal: Principal, job_name: str) -> JobRecord:
        """Delete a job that has ended, including its events. Raises JobNotEndedError."""
        found = await self._queries.get(principal, job_name)

        def work(connection: Connection) -> JobRecord:
            record = _lock(connection, found)
            if not has_ended(record.job):
                raise JobNotEndedError(job_name, state_name(record.job), "Cancel it before you delete it")
            job_queries.delete_job(connection, record.job_key)
            return record

        deleted = await self._log.write(work)
        _log.info("%s: deleted", job_name)
        return deleted


def _check_free(connection: Connection, job_id: str) -> None:
    match job_queries.owner_of_id(connection, job_id):
        case "jobs":
            raise JobAlreadyExistsError(f"jobs/{job_id}")
        case "models":
            raise ModelAlreadyExistsError(f"models/{job_id}")


def _lock(connection: Connection, found: JobRecord) -> JobRecord:
    """Lock a job for a change, and return it. Raises JobNotFoundError if it was deleted in the meantime."""
    record = job_queries.lock_job(connection, found.job_key)
    if record is None:
        raise JobNotFoundError(found.job.name)
    return record
