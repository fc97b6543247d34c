"""One attempt of a job: from a free worker to the attempt's last event."""

import asyncio
import logging

from gradwire_engine.spec.building import references
from gradwire_server.blobs import BlobStore
from gradwire_server.checkpoints import Checkpoints
from gradwire_server.jobs import AttemptOverError, Jobs
from gradwire_server.runner import Pool, Runner, Worker, WorkerLostError
from gradwire_server.store.queries import JobRow
from gradwire_worker.reports import Assignment, Report

_log = logging.getLogger(__name__)

# How long a poll waits for something to report before it is asked again.
_POLL_SECONDS = 20.0


class Attempts:
    """Runs attempts on workers and stores what they report."""

    def __init__(self, jobs: Jobs, runner: Runner, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._runner = runner
        self._blobs = blobs
        self._checkpoints = Checkpoints(blobs)

    async def run(self, queued: JobRow, pool: Pool) -> None:
        """Run the next attempt of a queued job to its end, whatever that is. Cancelling this stops the worker."""
        worker = await self._runner.acquire(pool)
        healthy = False
        try:
            row = await self._jobs.start_attempt(queued.id)
            healthy = await self._run_on(worker, row)
        except AttemptOverError:
            healthy = True  # The job was cancelled while it waited: the worker has not seen it.
        finally:
            if healthy:
                self._runner.release(worker)
            else:
                self._runner.discard(worker)

    async def _run_on(self, worker: Worker, row: JobRow) -> bool:
        """Run a started attempt; whether the worker can be used again."""
        job, attempt = row.message.name, row.message.attempt
        try:
            resume = await asyncio.to_thread(self._checkpoints.newest, row.id)
            spec = row.message.spec
            assignment = Assignment(job, attempt, spec.SerializeToString(), row.classification, self._blobs.url, resume)
            await self._runner.start(worker, assignment, list(references(spec).values()))
            await self._follow(worker, row)
        except WorkerLostError as error:
            _log.warning("%s lost its worker in attempt %d: %s", job, attempt, error)
            await self._jobs.worker_lost(row.id, attempt, str(error))
            return False
        except (AttemptOverError, asyncio.CancelledError):
            return await self._stop(worker, row)
        except Exception as error:
            # The last line of defence: whatever it is, the job must end and say so.
            _log.exception("attempt %d of %s broke off", attempt, job)
            message = f"the server failed while it followed the job: {type(error).__name__}: {error}"
            await self._jobs.fail(row.id, attempt, "SERVER_ERROR", message)
            return False
        return True

    async def _follow(self, worker: Worker, row: JobRow) -> None:
        job, attempt = row.message.name, row.message.attempt
        acknowledged = 0
        ended = False
        while not ended:
            reports = await self._runner.poll(worker, job, attempt, acknowledged, _POLL_SECONDS)
            if reports:
                ended = await self._store(row, reports)
                acknowledged = reports[-1].sequence

    async def _store(self, row: JobRow, reports: list[Report]) -> bool:
        """Store reports, their weights first; whether the job has ended with them."""
        events = [report.message() for report in reports]
        for event, report in zip(events, reports, strict=True):
            if report.weights is None:
                continue
            if event.checkpoint.epoch == row.message.spec.epochs:
                await asyncio.to_thread(self._blobs.put, event.checkpoint.weights.sha256, report.weights)
            else:
                await asyncio.to_thread(self._checkpoints.save, row.id, event.checkpoint, report.weights)
        stored = await self._jobs.record(row.id, row.message.attempt, events)
        if stored.message.model:
            await asyncio.to_thread(self._checkpoints.drop, row.id)
        return stored.ended

    async def _stop(self, worker: Worker, row: JobRow) -> bool:
        try:
            await self._runner.stop(worker, row.message.name, row.message.attempt)
        except (WorkerLostError, TimeoutError) as error:
            _log.warning("%s did not stop: %s", worker.name, error)
            return False
        return True
