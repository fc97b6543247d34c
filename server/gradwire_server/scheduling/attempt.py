"""Runs one attempt of a job, from acquiring a worker to the last event of the attempt."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any

from gradwire_engine.spec.resolve import references
from gradwire_engine.spec.stopping import progress_of, rules_of
from gradwire_proto.v1.errors_pb2 import JobErrorReason, JobWarningReason
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobState
from gradwire_server.errors import UnavailableError
from gradwire_server.jobs.attempt_records import MAX_WORKERS_LOST, AttemptOverError, AttemptRecords
from gradwire_server.jobs.events import JobUpdater, has_ended, model_epoch, warning
from gradwire_server.scheduling.lease import LeaseLostError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace, wait_for_space
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.workers.handle import DeviceKind, WorkerHandle, WorkerLostError
from gradwire_server.workers.pool import WorkerPool
from gradwire_worker.messages import Assignment, Report, ResumePoint

_log = logging.getLogger(__name__)

# The time that a poll waits for a report.
_POLL_SECONDS = 20.0
# If a job loses a second worker in a row, it waits this long before it continues.
_BACKOFF_SECONDS = 1.0


class WorkerDisposition(Enum):
    """The action that the pool takes for a worker after an attempt."""

    # The worker is healthy and waits for the next attempt.
    RELEASE = auto()
    # The worker is dead or can no longer be trusted. The pool kills it if it still runs.
    DISCARD = auto()
    # The worker continues, and the next scheduling server takes it over.
    LEAVE = auto()


class Attempts:
    """Runs attempts on workers, and stores their reports, while this server schedules."""

    def __init__(
        self,
        records: AttemptRecords,
        pool: WorkerPool,
        blobs: BlobStore,
        checkpoints: CheckpointStore,
        disk_space: DiskSpace,
    ) -> None:
        self._records = records
        self._pool = pool
        self._blobs = blobs
        self._checkpoints = checkpoints
        self._disk_space = disk_space
        # The disposition of all workers when this server stops scheduling, or None while it schedules.
        self._final_disposition: WorkerDisposition | None = None
        # The running attempts, by job, and the calls that finish them.
        self._following: dict[int, tuple[WorkerHandle, JobRecord]] = {}
        self._finishing: set[asyncio.Task[None]] = set()

    def end(self, *, leave_workers: bool) -> None:
        """Record that attempts are cancelled from now on because this server is no longer scheduling.

        Args:
            leave_workers: Whether workers continue to run for the next server.
        """
        self._final_disposition = WorkerDisposition.LEAVE if leave_workers else WorkerDisposition.DISCARD

    def finish(self, job_key: int) -> None:
        """Make the running attempt of a job, if there is one, end the job after the current epoch."""
        if job_key in self._following:
            task = asyncio.create_task(_finish(*self._following[job_key]))
            self._finishing.add(task)
            task.add_done_callback(self._finishing.discard)

    async def run(self, queued: JobRecord, device: DeviceKind) -> None:
        """Run the next attempt of a queued job until it succeeds, fails or is interrupted. To stop it, cancel the task.

        Raises:
            WorkerLostError: A worker cannot be created.
        """
        if queued.workers_lost > 1:
            await asyncio.sleep(_BACKOFF_SECONDS)
        worker = await self._pool.acquire(device)
        await self._finish(worker, queued, self._start_and_follow(worker, queued))

    async def take_over(self, record: JobRecord, worker: WorkerHandle) -> None:
        """Follow an attempt that another server started. Continue after the last stored report."""
        if record.job.HasField("stop_request_time"):
            await _finish(worker, record)  # The other server may not have forwarded the request.
        next_reports = worker.poll(record.job.name, record.job.attempt, record.last_report, _POLL_SECONDS)
        following = self._follow(worker, record, next_reports)
        await self._finish(worker, record, self._follow_to_end(worker, record, following))

    async def _finish(
        self, worker: WorkerHandle, record: JobRecord, attempt: Coroutine[Any, Any, WorkerDisposition]
    ) -> None:
        """Wait for an attempt to end, and then release, discard or leave its worker."""
        disposition = WorkerDisposition.DISCARD
        try:
            disposition = await attempt
        except LeaseLostError:
            disposition = WorkerDisposition.LEAVE
        except UnavailableError as error:
            _log.error("cannot record the attempt of %s, which starts again later: %s", record.job.name, error)
        finally:
            match self._final_disposition or disposition:
                case WorkerDisposition.RELEASE:
                    self._pool.release(worker)
                case WorkerDisposition.DISCARD:
                    self._pool.discard(worker)

    async def _start_and_follow(self, worker: WorkerHandle, queued: JobRecord) -> WorkerDisposition:
        """Start the next attempt of a queued job and follow it to its end."""
        try:
            record = await wait_for_space(lambda _waited: self._records.start_attempt(queued.job_key))
        except AttemptOverError:
            return WorkerDisposition.RELEASE  # The job was stopped while it waited.
        except UnavailableError as error:
            _log.error("cannot start %s: %s", queued.job.name, error)
            return WorkerDisposition.RELEASE
        except asyncio.CancelledError:
            # Writes are executed in order, so if the start was already submitted, it is stored now.
            if self._final_disposition is None:
                with suppress(AttemptOverError):
                    attempt = queued.job.attempt + 1
                    await wait_for_space(lambda _waited: self._records.requeue(queued.job_key, attempt))
            return WorkerDisposition.RELEASE  # The worker has not received the job.
        _log.info("%s: attempt %d starts on worker %s", record.job.name, record.job.attempt, worker.name)
        return await self._follow_to_end(worker, record, self._assign_and_follow(worker, record))

    async def _follow_to_end(
        self, worker: WorkerHandle, record: JobRecord, follow: Coroutine[Any, Any, None]
    ) -> WorkerDisposition:
        """Wait for an attempt to end and record the result. Returns the disposition of the worker."""
        self._following[record.job_key] = worker, record
        try:
            await follow
        except WorkerLostError as error:
            await self._record_lost_worker(worker, record, error)
            return WorkerDisposition.DISCARD
        except AttemptOverError:
            return await self._stop(worker, record)
        except asyncio.CancelledError:
            if self._final_disposition is not None:
                return self._final_disposition
            return await self._stop_and_requeue(worker, record)
        except (LeaseLostError, UnavailableError):
            raise
        except Exception as error:  # Whatever happens, the job must end with an error message.
            _log.exception("attempt %d of %s failed in the server", record.job.attempt, record.job.name)
            text = f"the server failed while it followed the job: {type(error).__name__}: {error}"
            await self._record_failure(record, text)
            return WorkerDisposition.DISCARD
        finally:
            del self._following[record.job_key]
        return WorkerDisposition.RELEASE

    async def _assign_and_follow(self, worker: WorkerHandle, record: JobRecord) -> None:
        job = record.job
        assignment = Assignment(
            job=job.name,
            attempt=job.attempt,
            spec=job.spec.SerializeToString(),
            initial_epoch=job.initial_epoch,
            classification=record.classification,
            blobs=self._blobs.url,
            resume=await self._resume_point(record),
            progress=progress_of(job, rules_of(job.spec)),
            stop_requested=job.HasField("stop_request_time"),
        )
        first_reports = worker.start(assignment, list(references(job.spec).values()), self._blobs, _POLL_SECONDS)
        await self._follow(worker, record, first_reports)

    async def _resume_point(self, record: JobRecord) -> ResumePoint | None:
        """Return the checkpoint from which an attempt continues, or None to start from the beginning."""
        job, checkpoints = record.job, self._checkpoints
        if job.attempt == 1:
            return None  # No attempt has stored a checkpoint yet.
        # A checkpoint whose epochs were not stored, because the server crashed in between, cannot be used.
        point = await asyncio.to_thread(checkpoints.newest_intact, record.job_key, job.last_epoch.epoch)
        best = job.best_epoch.epoch if rules_of(job.spec).needs_best else 0
        if point is None or not 0 < best < point.epoch:
            return point
        # The best epoch is before the checkpoint, so an attempt that continues there needs its stored weights.
        if await asyncio.to_thread(checkpoints.is_intact, record.job_key, best):
            return point
        return await asyncio.to_thread(checkpoints.newest_intact, record.job_key, best - 1)

    async def _follow(self, worker: WorkerHandle, record: JobRecord, next_reports: Awaitable[list[Report]]) -> None:
        """Store the reports of a worker until the job has ended. The next poll acknowledges them.

        Args:
            worker: The worker.
            record: The job.
            next_reports: The call that returns the next reports.
        """
        job, acknowledged = record.job, record.last_report
        current, is_finishing = record, False
        while True:
            reports = await next_reports
            if reports:
                current = await wait_for_space(partial(self._store, current, reports))
                if has_ended(current.job):
                    return
                acknowledged = reports[-1].sequence
            else:
                # This server may have missed the request to stop or finish the attempt.
                with suppress(UnavailableError):
                    current = await self._records.current(record.job_key, job.attempt)
            if current.job.HasField("stop_request_time") and not is_finishing:
                is_finishing = True
                await worker.finish(job.name, job.attempt)
            next_reports = worker.poll(job.name, job.attempt, acknowledged, _POLL_SECONDS)

    async def _store(self, record: JobRecord, reports: list[Report], waited: float) -> JobRecord:
        """Store the weights that the reports contain, and then the reports. Returns the job.

        Args:
            record: The job as of the last reports.
            reports: The reports of the worker.
            waited: The time that the reports have waited for disk space, in seconds.
        """
        self._disk_space.require_for_running_work()
        events = [report.to_event() for report in reports]
        weights = {
            event.checkpoint.epoch: (event.checkpoint, report.weights)
            for event, report in zip(events, reports, strict=True)
            if report.weights is not None
        }
        final = _epoch_of_model(record, events)
        for epoch, (checkpoint, data) in weights.items():
            if epoch != final:
                await asyncio.to_thread(self._checkpoints.save, record.job_key, checkpoint, data)
        if final is not None:
            await asyncio.to_thread(self._put_model, record, final, weights)
        if waited:
            text = f"the disk of the server was full. The job waited for {waited:.0f} s"
            events.insert(0, warning(JobWarningReason.JOB_WARNING_REASON_DISK_FULL, text))
        try:
            stored = await self._records.record_reports(
                record.job_key, record.job.attempt, events, last_report=reports[-1].sequence
            )
        except AttemptOverError:
            await self._delete_unstored(record.job_key)
            raise
        if final is not None:
            # Until the model existed, nothing referenced its weights, so a client could delete them.
            await asyncio.to_thread(self._put_model, record, final, weights)
        if final is not None or weights:
            # Files that the job no longer needs are deleted only after the job is stored.
            await asyncio.to_thread(self._delete_unneeded, stored)
        return stored

    def _put_model(self, record: JobRecord, epoch: int, weights: dict[int, tuple[Checkpoint, bytes]]) -> None:
        """Store the weights of a model as a blob. The weights are new, or come from a stored checkpoint."""
        if epoch in weights:
            checkpoint, data = weights[epoch]
            self._blobs.put(checkpoint.weights.sha256, data)
        elif self._checkpoints.as_tensor(record.job_key, epoch, record.job.spec) is None:
            raise RuntimeError(f"the stored weights of the best epoch, {epoch}, are damaged")

    def _delete_unneeded(self, stored: JobRecord) -> None:
        kept = set(stored.job.kept_epochs)
        if not stored.job.model:
            self._checkpoints.prune(stored.job_key, kept)
            return
        kept.discard(model_epoch(stored.job).epoch)
        if kept:
            self._checkpoints.prune(stored.job_key, kept, others=0)
        else:
            self._checkpoints.delete_all(stored.job_key)

    async def _delete_unstored(self, job_key: int) -> None:
        """Delete the checkpoints of epochs that are not stored, after an attempt was interrupted."""
        record = await self._records.find(job_key)
        if record is None:
            await asyncio.to_thread(self._checkpoints.delete_all, job_key)
        else:
            await asyncio.to_thread(self._checkpoints.delete_after, job_key, record.job.last_epoch.epoch)

    async def _record_lost_worker(self, worker: WorkerHandle, record: JobRecord, error: WorkerLostError) -> None:
        _log.warning("%s lost its worker in attempt %d: %s", record.job.name, record.job.attempt, error)
        # Read the log only if it will be shown, because the job waits in the meantime.
        log = await worker.log_tail() if record.workers_lost + 1 == MAX_WORKERS_LOST else ""
        with suppress(AttemptOverError):
            await wait_for_space(
                lambda _waited: self._records.worker_lost(record.job_key, record.job.attempt, str(error), log)
            )

    async def _record_failure(self, record: JobRecord, text: str) -> None:
        reason = JobErrorReason.JOB_ERROR_REASON_SERVER_ERROR
        with suppress(AttemptOverError):
            await wait_for_space(lambda _waited: self._records.fail(record.job_key, record.job.attempt, reason, text))

    async def _stop_and_requeue(self, worker: WorkerHandle, record: JobRecord) -> WorkerDisposition:
        """Stop an attempt on request. If the job is still active because it was resumed, put it back into the queue."""
        disposition = await self._stop(worker, record)
        try:
            await wait_for_space(lambda _waited: self._records.requeue(record.job_key, record.job.attempt))
        except AttemptOverError:
            await self._delete_unstored(record.job_key)
        return disposition

    async def _stop(self, worker: WorkerHandle, record: JobRecord) -> WorkerDisposition:
        try:
            await worker.stop(record.job.name, record.job.attempt)
        except (WorkerLostError, TimeoutError) as error:
            _log.warning("killing worker %s, which did not stop: %s", worker.name, error)
            return WorkerDisposition.DISCARD
        return WorkerDisposition.RELEASE


def _epoch_of_model(record: JobRecord, events: Sequence[Event]) -> int | None:
    """Return the epoch that the model's weights come from, if these events end the job successfully, or None."""
    if events[-1].state_change.state != JobState.JOB_STATE_SUCCEEDED:
        return None
    if not record.job.spec.early_stopping.restore_best:
        return max((event.epoch.epoch for event in events), default=0) or record.job.last_epoch.epoch
    job = Job()
    job.CopyFrom(record.job)
    updater = JobUpdater(job)
    for event in events:
        updater.apply(event)
    return model_epoch(job).epoch


async def _finish(worker: WorkerHandle, record: JobRecord) -> None:
    # If the worker is lost, its attempt ends, and the next attempt knows about the request.
    with suppress(WorkerLostError):
        await worker.finish(record.job.name, record.job.attempt)
