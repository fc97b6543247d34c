"""The life of a job: its states, its attempts and its log of events. All that changes a job is here."""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from sqlalchemy import Connection

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobState
from gradwire_server.api.list_requests import Page
from gradwire_server.errors import already_exists, failed_precondition, not_found, out_of_range
from gradwire_server.jobs import events as joblog
from gradwire_server.jobs.notifier import Changes
from gradwire_server.scheduling.lease import Lease
from gradwire_server.storage.disk_space import when_there_is_room
from gradwire_server.store import queries
from gradwire_server.store.database import Database
from gradwire_server.store.notifications import Change
from gradwire_server.store.queries import JobRow

_log = logging.getLogger(__name__)

# A job whose workers die this often without a new epoch is given up: it may well be what kills them.
MOST_WORKERS_LOST = 3

_UNFINISHED = (JobState.JOB_STATE_STARTING, JobState.JOB_STATE_RUNNING)


class AttemptOverError(RuntimeError):
    """The attempt is not the job's current one any more, or the job has ended: its worker is refused."""


class Jobs:
    """Reads and changes jobs. Every change is one transaction: the job and its events together, then who waits is told.

    What clients ask for, any server does. What becomes of attempts, only the one writes that holds the lease:
    LeaseLostError for another, and nothing stored.
    """

    def __init__(
        self, database: Database, changes: Changes, lease: Lease, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._database = database
        self._changes = changes
        self._lease = lease
        self._clock = clock

    async def create(self, spec: JobSpec, classification: bool, job_id: str, request_id: str) -> Job:
        """Queue a job. The same request_id again returns the job that it made before."""

        def work(connection: Connection) -> JobRow:
            earlier = queries.job_of_request(connection, request_id)
            if earlier is not None:
                return earlier
            chosen = job_id or f"job-{secrets.token_hex(5)}"
            if queries.find_job(connection, chosen) is not None:
                raise already_exists(f"jobs/{chosen}")
            job = Job(name=f"jobs/{chosen}", spec=spec)
            job.create_time.FromNanoseconds(self._clock())
            row = queries.insert_job(connection, job, chosen, request_id, classification)
            self._append(connection, row, [joblog.change(JobState.JOB_STATE_QUEUED)])
            return row

        return (await self._change(work, start=True)).message

    async def find(self, name: str) -> JobRow:
        """Return the job of that name, "jobs/{job_id}"; NOT_FOUND where there is none."""
        row = await self._database.read(lambda connection: queries.find_job(connection, name.removeprefix("jobs/")))
        if row is None or not name.startswith("jobs/"):
            raise not_found(name)
        return row

    async def find_request(self, request_id: str) -> Job | None:
        """Return the job that the request has made before, if it has."""
        row = await self._database.read(lambda connection: queries.job_of_request(connection, request_id))
        return None if row is None else row.message

    async def list(self, page: Page) -> tuple[Sequence[Job], str]:
        """Return a page of jobs, and the token of the next."""
        return await self._database.read(lambda connection: queries.list_jobs(connection, page))

    async def queued(self, limit: int) -> Sequence[JobRow]:
        """Return the jobs that wait for a worker, in order of arrival."""
        states = (JobState.JOB_STATE_QUEUED,)
        return await self._database.read(lambda connection: queries.jobs_in_states(connection, states, limit))

    async def events_after(self, number: int, sequence: int, limit: int) -> Sequence[Event]:
        """Return the job's next events after a sequence number."""
        return await self._database.read(lambda connection: queries.events_after(connection, number, sequence, limit))

    async def check_sequence(self, name: str, after: int) -> JobRow:
        """Return the job if it has an event of that number, or `after` is 0; else OUT_OF_RANGE."""
        row = await self.find(name)
        if not 0 <= after <= row.message.last_sequence:
            last = row.message.last_sequence
            raise out_of_range("after_sequence", f"must be 0..{last}, the job's last event, got {after}")
        return row

    async def cancel(self, name: str) -> JobRow:
        """End a job that has not ended."""
        found = await self.find(name)

        def work(connection: Connection) -> JobRow:
            row = _still_there(connection, found)
            if not row.ended:
                self._append(connection, row, [joblog.change(JobState.JOB_STATE_CANCELLED, "on request")])
            return row

        return await self._change(work, stop=True)

    async def pause(self, name: str) -> JobRow:
        """Set a job aside; one that is paused already stays as it is."""
        found = await self.find(name)

        def work(connection: Connection) -> JobRow:
            row = _still_there(connection, found)
            if row.ended:
                raise failed_precondition("JOB_ENDED", "name", f"names {name}, which has ended: it cannot be paused")
            if row.message.state != JobState.JOB_STATE_PAUSED:
                self._append(connection, row, [joblog.change(JobState.JOB_STATE_PAUSED, "on request")])
            return row

        return await self._change(work, stop=True)

    async def resume(self, name: str) -> JobRow:
        """Queue a paused job again; one that was resumed already stays as it is."""
        found = await self.find(name)

        def work(connection: Connection) -> JobRow:
            row = _still_there(connection, found)
            if row.ended:
                message = f"names {name}, which has ended: create a job with resume_from to go on from it"
                raise failed_precondition("JOB_ENDED", "name", message)
            if row.message.state == JobState.JOB_STATE_PAUSED:
                self._append(connection, row, [joblog.change(JobState.JOB_STATE_QUEUED, "resumed on request")])
            elif not queries.was_paused(connection, row.id):
                raise failed_precondition("JOB_NOT_PAUSED", "name", f"names {name}, which is not paused")
            return row

        return await self._change(work, start=True)

    async def delete(self, name: str) -> int:
        """Delete a job that has ended, and return its number."""
        found = await self.find(name)

        def work(connection: Connection) -> int:
            if not _still_there(connection, found).ended:
                message = f"names {name}, which has not ended: cancel it first"
                raise failed_precondition("JOB_NOT_ENDED", "name", message)
            queries.delete_job(connection, found.id)
            return found.id

        return await self._database.write(work)

    async def start_attempt(self, number: int) -> JobRow:
        """Begin the next attempt of a queued job; AttemptOverError if it is not queued any more."""

        def work(connection: Connection) -> JobRow:
            row = queries.job_to_change(connection, number)
            if row is None or row.message.state != JobState.JOB_STATE_QUEUED:
                raise AttemptOverError(f"job number {number} is not queued")
            row.message.attempt += 1
            row.reported = 0
            self._append(connection, row, [joblog.change(JobState.JOB_STATE_STARTING)])
            return row

        return await self._schedule(work)

    async def record(self, number: int, attempt: int, events: Sequence[Event], reported: int) -> JobRow:
        """Store what the attempt's worker reports; AttemptOverError, and nothing stored, if the attempt is over.

        reported: the number of the last of these reports, from which another server would go on.
        """

        def work(connection: Connection) -> JobRow:
            row = _current(connection, number, attempt)
            if reported <= row.reported:
                return row  # Stored just before the database went away.
            row.reported = reported
            new = [unseen for event in events for unseen in _unseen(connection, row, event)]
            if any(event.HasField("epoch") for event in new):
                row.workers_lost = 0
            self._append(connection, row, new)
            return row

        return await self._schedule(work)

    async def worker_lost(self, number: int, attempt: int, cause: str, last_words: str) -> JobRow:
        """Queue the job again after its worker died, or fail it if that has happened too often.

        last_words: the end of the worker's log, for the user of a job that fails.
        """

        def work(connection: Connection) -> JobRow:
            row = _current(connection, number, attempt)
            row.workers_lost += 1
            if row.workers_lost >= MOST_WORKERS_LOST:
                message = f"{row.workers_lost} workers died at the same place of this job; the last: {cause}"
                if last_words:
                    message += f"\nits log ends with:\n{last_words}"
                self._append(connection, row, [joblog.failure("WORKER_LOST", message)])
            else:
                self._append(
                    connection, row, [joblog.warning("WORKER_LOST", cause), joblog.change(JobState.JOB_STATE_QUEUED)]
                )
            return row

        return await self._schedule(work)

    async def fail(self, number: int, attempt: int, reason: str, message: str) -> JobRow:
        """End the attempt and the job with an error that the server has found."""

        def work(connection: Connection) -> JobRow:
            row = _current(connection, number, attempt)
            self._append(connection, row, [joblog.failure(reason, message)])
            return row

        return await self._schedule(work)

    async def check_attempt(self, number: int, attempt: int) -> None:
        """AttemptOverError unless this is the job's attempt and is wanted."""
        row = await self._database.read(lambda connection: queries.find_number(connection, number))
        _check_current(row, number, attempt)

    async def unfinished(self) -> Sequence[JobRow]:
        """Return the jobs that have an attempt under way, as far as is stored."""
        return await self._database.read(lambda connection: queries.jobs_in_states(connection, _UNFINISHED))

    async def requeue(self, number: int, attempt: int) -> JobRow:
        """Queue a job again whose attempt was taken off its worker though nobody wanted the job to stop."""
        return await self._requeue(
            number, attempt, [joblog.change(JobState.JOB_STATE_QUEUED, "its attempt was interrupted")]
        )

    async def requeue_unfinished(self, but: Collection[int]) -> None:
        """At the start of a server: jobs that were running go on from their last checkpoint, in a new attempt.

        but: the numbers of those whose worker is still there.
        """
        for row in await self.unfinished():
            if row.id in but:
                continue
            warning = joblog.warning("SERVER_RESTARTED", "the server was started again")
            with suppress(AttemptOverError):  # It was paused or cancelled meanwhile.
                await self._requeue(row.id, row.message.attempt, [warning, joblog.change(JobState.JOB_STATE_QUEUED)])
                _log.info("%s goes on in a new attempt", row.message.name)

    async def _requeue(self, number: int, attempt: int, events: Sequence[Event]) -> JobRow:
        def work(connection: Connection) -> JobRow:
            row = _current(connection, number, attempt)
            self._append(connection, row, events)
            return row

        return await self._schedule(work)

    async def _change(self, work: Callable[[Connection], JobRow], *, start: bool = False, stop: bool = False) -> JobRow:
        """Make a change, and tell of it; start, stop: whether the scheduler has to do something then."""

        def told(connection: Connection) -> JobRow:
            row = work(connection)
            self._database.news.send(connection, Change(row.id, start, stop))
            return row

        row = await self._database.write(told)
        self._changes.hear(Change(row.id, start, stop))
        return row

    async def _schedule(self, work: Callable[[Connection], JobRow]) -> JobRow:
        """Make a change that only the server may make that holds the lease; waits while the disk is full."""

        def fenced(connection: Connection) -> JobRow:
            self._lease.check(connection)
            return work(connection)

        return await when_there_is_room(lambda _waited: self._change(fenced))

    def _append(self, connection: Connection, row: JobRow, events: Sequence[Event]) -> None:
        """Give the events their numbers, fold them into the job, and store both."""
        now = self._clock()
        checkpoint: Checkpoint | None = None
        for event in events:
            row.message.last_sequence += 1
            event.sequence, event.attempt = row.message.last_sequence, row.message.attempt
            event.time.FromNanoseconds(now)
            if event.HasField("checkpoint"):
                checkpoint = event.checkpoint
            if event.state_change.state == JobState.JOB_STATE_SUCCEEDED:
                model = joblog.finished_model(
                    row.message, row.job_id, checkpoint or queries.last_checkpoint(connection, row.id), now
                )
                queries.insert_model(connection, row.job_id, model)
                event.state_change.model = model.name
            joblog.fold(row.message, event)
        queries.insert_events(connection, row.id, events)
        queries.save_job(connection, row)


def _current(connection: Connection, number: int, attempt: int) -> JobRow:
    """Return the job, to be changed, whose attempt this is; AttemptOverError if it is not."""
    return _check_current(queries.job_to_change(connection, number), number, attempt)


def _check_current(row: JobRow | None, number: int, attempt: int) -> JobRow:
    if row is None or row.message.attempt != attempt or row.message.state not in _UNFINISHED:
        raise AttemptOverError(f"attempt {attempt} of job number {number} is over")
    return row


def _still_there(connection: Connection, found: JobRow) -> JobRow:
    row = queries.job_to_change(connection, found.id)
    if row is None:
        raise not_found(found.message.name)
    return row


def _unseen(connection: Connection, row: JobRow, event: Event) -> list[Event]:
    """Drop an epoch that an earlier attempt has reported; say so if it came out differently."""
    if event.WhichOneof("kind") != "epoch" or event.epoch.epoch > row.message.last_epoch.epoch:
        return [event]
    stored = queries.epoch_event(connection, row.id, event.epoch.epoch).epoch
    difference = joblog.difference(stored, event.epoch)
    return [joblog.warning("NOT_DETERMINISTIC", difference)] if difference else []
