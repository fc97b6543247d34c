"""The records of attempts: their start, their reports and their end. Only the lease holder writes them."""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection

from gradwire_proto.v1.errors_pb2 import JobErrorReason, JobWarningReason
from gradwire_proto.v1.training_service_pb2 import Event, JobState
from gradwire_server.jobs.event_log import EventLog
from gradwire_server.jobs.events import difference, failure, state_change, warning
from gradwire_server.store import job_queries
from gradwire_server.store.job_queries import JobRecord

_log = logging.getLogger(__name__)

# If this many workers of a job die in a row without a new epoch, the job fails, because the job may be the cause.
MAX_WORKERS_LOST = 3

# A job that was running during this many server crashes, without a new epoch in between, runs only when no other such
# job is running.
_SUSPICIOUS_CRASHES = 2
# After this many crashes, the job fails, because it probably causes them.
_MAX_CRASHES = 3

_RESTARTED = "the scheduling server restarted, or another server took over"

_ACTIVE_STATES = (JobState.JOB_STATE_STARTING, JobState.JOB_STATE_RUNNING)


def is_suspect(record: JobRecord) -> bool:
    """Whether a job may have crashed the server: it was running during two crashes, without a new epoch in between."""
    return record.crashes >= _SUSPICIOUS_CRASHES


class AttemptOverError(RuntimeError):
    """The attempt is no longer current, or its job is not active. Reports from its worker are rejected."""


class AttemptRecords:
    """Records attempts. Each write checks the lease in the same transaction, and fails if this server has lost it."""

    def __init__(self, log: EventLog, check_lease: Callable[[Connection], None]) -> None:
        """Create the records. `check_lease` raises an exception if this server does not hold the lease."""
        self._log = log
        self._check_lease = check_lease

    async def queued(self, limit: int, except_keys: Collection[int] = ()) -> Sequence[JobRecord]:
        """Return the first queued jobs in order of arrival, without those that have these keys."""
        states, keys = (JobState.JOB_STATE_QUEUED,), list(except_keys)
        return await self._log.read(lambda connection: job_queries.jobs_in_states(connection, states, limit, keys))

    async def active(self) -> Sequence[JobRecord]:
        """Return the jobs with an attempt that has started and not ended."""
        return await self._log.read(lambda connection: job_queries.jobs_in_states(connection, _ACTIVE_STATES))

    async def start_attempt(self, job_key: int) -> JobRecord:
        """Start the next attempt of a job. Raises AttemptOverError if the job is no longer queued."""

        def work(connection: Connection) -> JobRecord:
            record = job_queries.lock_job(connection, job_key)
            if record is None or record.job.state != JobState.JOB_STATE_QUEUED:
                raise AttemptOverError(f"job {job_key} is not queued")
            record.job.attempt += 1
            record.last_report = 0
            self._log.append(connection, record, [state_change(JobState.JOB_STATE_STARTING)])
            return record

        return await self._write(work)

    async def record_reports(self, job_key: int, attempt: int, new: Sequence[Event], last_report: int) -> JobRecord:
        """Store the events that the worker of an attempt reported.

        Args:
            job_key: The job.
            attempt: The number of the attempt.
            new: The events, in order.
            last_report: The sequence number of the last of these reports. Reports up to this number are never stored
                again, and a server that takes over continues after this number.

        Raises:
            AttemptOverError: The attempt has ended. Nothing was stored.
        """

        def work(connection: Connection) -> JobRecord:
            record = _lock_current(connection, job_key, attempt)
            if last_report <= record.last_report:
                return record  # The reports were stored just before the connection to the database was lost.
            record.last_report = last_report
            unseen = [event for each in new for event in _without_repeated_epochs(connection, record, each)]
            if any(event.HasField("epoch") for event in unseen):
                record.workers_lost = record.crashes = 0
            self._log.append(connection, record, unseen)
            return record

        return await self._write(work)

    async def worker_lost(self, job_key: int, attempt: int, cause: str, worker_log: str) -> JobRecord:
        """Put a job back into the queue after its worker died, or fail the job if too many workers died.

        Args:
            job_key: The job.
            attempt: The number of the attempt.
            cause: The reason why the worker is considered lost.
            worker_log: The end of the worker's log, which is included in the error message if the job fails.
        """

        def work(connection: Connection) -> JobRecord:
            record = _lock_current(connection, job_key, attempt)
            record.workers_lost += 1
            if record.workers_lost < MAX_WORKERS_LOST:
                lost = warning(JobWarningReason.JOB_WARNING_REASON_WORKER_LOST, cause)
                self._log.append(connection, record, [lost, state_change(JobState.JOB_STATE_QUEUED)])
                return record
            text = f"{record.workers_lost} workers died in a row without a new epoch of this job. The last one: {cause}"
            if worker_log:
                text += f"\nIts log ends with:\n{worker_log}"
            self._log.append(connection, record, [failure(JobErrorReason.JOB_ERROR_REASON_WORKER_LOST, text)])
            return record

        return await self._write(work)

    async def fail(self, job_key: int, attempt: int, reason: JobErrorReason, text: str) -> JobRecord:
        """End an attempt and its job with an error that the server detected."""
        return await self._append_to_current(job_key, attempt, [failure(reason, text)])

    async def requeue(self, job_key: int, attempt: int) -> JobRecord:
        """Put a job back into the queue after its attempt was interrupted without a request."""
        interrupted = state_change(JobState.JOB_STATE_QUEUED, "the attempt was interrupted")
        return await self._append_to_current(job_key, attempt, [interrupted])

    async def requeue_active(self, except_keys: Collection[int], *, after_crash: bool = False) -> None:
        """Put active jobs back into the queue. They continue from their last checkpoint in a new attempt.

        Args:
            except_keys: The jobs with workers that are still running.
            after_crash: Whether the jobs were running when a server crashed. A job fails at the third crash without a
                new epoch in between.
        """
        for record in await self.active():
            if record.job_key in except_keys:
                continue
            with suppress(AttemptOverError):  # The job was paused or cancelled in the meantime.
                await self._write(partial(self._requeue_one, record.job_key, record.job.attempt, after_crash))

    def _requeue_one(self, job_key: int, attempt: int, after_crash: bool, connection: Connection) -> JobRecord:
        record = _lock_current(connection, job_key, attempt)
        record.crashes += after_crash
        if record.crashes < _MAX_CRASHES:
            restarted = warning(JobWarningReason.JOB_WARNING_REASON_SERVER_RESTARTED, _RESTARTED)
            self._log.append(connection, record, [restarted, state_change(JobState.JOB_STATE_QUEUED)])
            _log.info("%s continues in a new attempt", record.job.name)
            return record
        text = (
            f"the server crashed {record.crashes} times while it ran this job, without a new epoch in between. The job "
            "may need more memory than the machine has: use a smaller model or batch_size"
        )
        self._log.append(connection, record, [failure(JobErrorReason.JOB_ERROR_REASON_SERVER_CRASHED, text)])
        _log.error("%s fails: %s", record.job.name, text)
        return record

    async def suspects(self, job_keys: Collection[int]) -> set[int]:
        """Return the given jobs that may have crashed the server; see `is_suspect`."""
        crashes = await self._log.read(lambda connection: job_queries.crashes_of(connection, job_keys))
        return {job_key for job_key, count in crashes.items() if count >= _SUSPICIOUS_CRASHES}

    async def find(self, job_key: int) -> JobRecord | None:
        """Return a job, or None if it was deleted."""
        return await self._log.read(lambda connection: job_queries.find_job_by_key(connection, job_key))

    async def current(self, job_key: int, attempt: int) -> JobRecord:
        """Return the job of an attempt. Raises AttemptOverError unless it is the current attempt of an active job."""
        return _check_current(await self.find(job_key), job_key, attempt)

    async def _append_to_current(self, job_key: int, attempt: int, new: Sequence[Event]) -> JobRecord:
        def work(connection: Connection) -> JobRecord:
            record = _lock_current(connection, job_key, attempt)
            self._log.append(connection, record, new)
            return record

        return await self._write(work)

    async def _write(self, work: Callable[[Connection], JobRecord]) -> JobRecord:
        def fenced(connection: Connection) -> JobRecord:
            self._check_lease(connection)
            return work(connection)

        return await self._log.write(fenced)


def _lock_current(connection: Connection, job_key: int, attempt: int) -> JobRecord:
    """Lock the job of an attempt for a change, and return it. Raises AttemptOverError if the attempt has ended."""
    return _check_current(job_queries.lock_job(connection, job_key), job_key, attempt)


def _check_current(record: JobRecord | None, job_key: int, attempt: int) -> JobRecord:
    if record is None or record.job.attempt != attempt or record.job.state not in _ACTIVE_STATES:
        raise AttemptOverError(f"attempt {attempt} of job {job_key} is over")
    return record


def _without_repeated_epochs(connection: Connection, record: JobRecord, event: Event) -> list[Event]:
    """Return the events to store. A repeated epoch becomes a warning if its result differs, and is omitted if not."""
    if event.WhichOneof("kind") != "epoch" or event.epoch.epoch > record.job.last_epoch.epoch:
        return [event]
    stored = job_queries.epoch_event(connection, record.job_key, event.epoch.epoch).epoch
    text = difference(stored, event.epoch)
    return [warning(JobWarningReason.JOB_WARNING_REASON_NOT_DETERMINISTIC, text)] if text else []
