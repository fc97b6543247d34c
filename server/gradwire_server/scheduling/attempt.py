"""One attempt of a job: from a free worker to the attempt's last event."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from gradwire_engine.spec.resolve import references
from gradwire_server.errors import DISK_FULL
from gradwire_server.jobs import events as joblog
from gradwire_server.jobs.commands import MOST_WORKERS_LOST, AttemptOverError, Jobs
from gradwire_server.scheduling.lease import LeaseLostError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.storage.disk_space import Room
from gradwire_server.store.queries import JobRow
from gradwire_server.workers.ray_cluster import Pool, Runner, Worker, WorkerLostError
from gradwire_worker.messages import Assignment, Report

_log = logging.getLogger(__name__)

# How long a poll waits for something to report before it is asked again.
_POLL_SECONDS = 20.0
# A job whose worker died once goes on at once; after that it waits a second, then twice as long each time.
_MOST_BACKOFF_SECONDS = 30.0


class _Fate(Enum):
    """What becomes of a worker after an attempt."""

    RELEASE = auto()
    DISCARD = auto()
    # It works on, for the next server.
    LEAVE = auto()


@dataclass
class _Returned:
    """The worker's fate, until it is known otherwise."""

    fate: _Fate = _Fate.DISCARD


class Attempts:
    """Runs attempts on workers and stores what they report, as long as this server schedules."""

    def __init__(self, jobs: Jobs, runner: Runner, blobs: BlobStore, checkpoints: Checkpoints, room: Room) -> None:
        self._jobs = jobs
        self._room = room
        self._runner = runner
        self._blobs = blobs
        self._checkpoints = checkpoints
        self._when_over: _Fate | None = None

    def end(self, *, leave_workers: bool) -> None:
        """Say, before they are cancelled, that attempts end because this server's scheduling does.

        leave_workers: let the workers go on, for the next server.
        """
        self._when_over = _Fate.LEAVE if leave_workers else _Fate.DISCARD

    async def run(self, queued: JobRow, pool: Pool) -> None:
        """Run the next attempt of a queued job to its end, whatever that is. Cancelling this stops the worker."""
        if queued.workers_lost > 1:
            await asyncio.sleep(min(_MOST_BACKOFF_SECONDS, 2.0 ** (queued.workers_lost - 2)))
        worker = await self._runner.acquire(pool)
        with self._returning(worker) as returned:
            returned.fate = _Fate.RELEASE  # The worker has not seen the job yet.
            starting = asyncio.ensure_future(self._jobs.start_attempt(queued.id))
            try:
                row = await asyncio.shield(starting)
            except AttemptOverError:
                return  # The job was stopped while it waited.
            except asyncio.CancelledError:
                with suppress(AttemptOverError):
                    await self._jobs.requeue(queued.id, (await starting).message.attempt)
                raise
            returned.fate = _Fate.DISCARD
            returned.fate = await self._guard(worker, row, self._start_and_follow)

    async def take_over(self, row: JobRow, worker: Worker) -> None:
        """Go on with an attempt that another server has started, from the last report that it has stored."""
        with self._returning(worker) as returned:
            returned.fate = await self._guard(worker, row, self._follow)

    @contextmanager
    def _returning(self, worker: Worker) -> Iterator[_Returned]:
        """Give the worker back at the end, if it is healthy; or leave it to the server that has the lease now."""
        returned = _Returned()
        try:
            yield returned
        except LeaseLostError:
            returned.fate = _Fate.LEAVE
        finally:
            match self._when_over or returned.fate:
                case _Fate.RELEASE:
                    self._runner.release(worker)
                case _Fate.DISCARD:
                    self._runner.discard(worker)

    async def _start_and_follow(self, worker: Worker, row: JobRow) -> None:
        spec = row.message.spec
        resume = await asyncio.to_thread(self._checkpoints.newest, row.id)
        assignment = Assignment(
            row.message.name, row.message.attempt, spec.SerializeToString(), row.classification, self._blobs.url, resume
        )
        await self._runner.start(worker, assignment, list(references(spec).values()))
        await self._follow(worker, row)

    async def _guard(self, worker: Worker, row: JobRow, follow: Callable[[Worker, JobRow], Awaitable[None]]) -> _Fate:
        """Follow an attempt to its end, whatever that is; what to do with the worker then."""
        job, attempt = row.message.name, row.message.attempt
        try:
            await follow(worker, row)
        except WorkerLostError as error:
            _log.warning("%s lost its worker in attempt %d: %s", job, attempt, error)
            # Only where it will be read: asking for it takes time, in which the job could go on.
            last_words = await self._runner.last_words(worker) if row.workers_lost + 1 == MOST_WORKERS_LOST else ""
            with suppress(AttemptOverError):
                await self._jobs.worker_lost(row.id, attempt, str(error), last_words)
            return _Fate.DISCARD
        except AttemptOverError:
            return await self._stop(worker, row)
        except asyncio.CancelledError:
            if self._when_over is not None:
                raise
            fate = await self._stop(worker, row)
            with suppress(AttemptOverError):
                # A request to stop may come late, after one to go on.
                await self._jobs.requeue(row.id, attempt)
            return fate
        except LeaseLostError:
            raise
        except Exception as error:
            # The last line of defence: whatever it is, the job must end and say so.
            _log.exception("attempt %d of %s broke off", attempt, job)
            message = f"the server failed while it followed the job: {type(error).__name__}: {error}"
            await self._jobs.fail(row.id, attempt, "SERVER_ERROR", message)
            return _Fate.DISCARD
        return _Fate.RELEASE

    async def _follow(self, worker: Worker, row: JobRow) -> None:
        job, attempt = row.message.name, row.message.attempt
        acknowledged = row.reported
        ended = False
        while not ended:
            reports = await self._runner.poll(worker, job, attempt, acknowledged, _POLL_SECONDS)
            if reports:
                ended = await self._room.for_running_work(partial(self._store, row, reports))
                acknowledged = reports[-1].sequence
            else:
                # Whoever wanted it to stop may have gone unheard.
                await self._jobs.check_attempt(row.id, attempt)

    async def _store(self, row: JobRow, reports: list[Report], waited: float) -> bool:
        """Store reports, their weights first; whether the job has ended with them.

        waited: the seconds for which there was no room for them.
        """
        events = [report.message() for report in reports]
        for event, report in zip(events, reports, strict=True):
            if report.weights is None:
                continue
            if event.checkpoint.epoch == row.message.spec.epochs:
                await asyncio.to_thread(self._blobs.put, event.checkpoint.weights.sha256, report.weights)
            else:
                await asyncio.to_thread(self._checkpoints.save, row.id, event.checkpoint, report.weights)
        if waited:
            message = f"the server's disk was full: nothing could be stored for {waited:.0f} s"
            events.insert(0, joblog.warning(DISK_FULL, message))
        stored = await self._jobs.record(row.id, row.message.attempt, events, reports[-1].sequence)
        if stored.message.model:
            await asyncio.to_thread(self._checkpoints.drop, row.id)
        return stored.ended

    async def _stop(self, worker: Worker, row: JobRow) -> _Fate:
        try:
            await self._runner.stop(worker, row.message.name, row.message.attempt)
        except (WorkerLostError, TimeoutError) as error:
            _log.warning("%s did not stop: %s", worker.name, error)
            return _Fate.DISCARD
        return _Fate.RELEASE
