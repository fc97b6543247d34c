"""The scheduling loop, which starts attempts of queued jobs and stops attempts on request."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

from gradwire_server.errors import DomainError
from gradwire_server.jobs.attempt_records import AttemptRecords, is_suspect
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.policy import next_jobs, without_further_suspects
from gradwire_server.storage.disk_space import wait_for_space
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.store.notifications import JobChange
from gradwire_server.workers.handle import DeviceKind, WorkerHandle
from gradwire_server.workers.pool import WorkerPool

_log = logging.getLogger(__name__)

# The number of queued jobs that one round considers.
_MAX_QUEUED = 100
# The interval between rounds when no notification arrives.
_INTERVAL_SECONDS = 5.0


class Scheduler:
    """Starts queued jobs as soon as workers are free. It is a subscriber of the job notifier."""

    def __init__(self, records: AttemptRecords, pool: WorkerPool, attempts: Attempts) -> None:
        self._records = records
        self._pool = pool
        self._attempts = attempts
        self._wake = asyncio.Event()
        self._check_active = False
        self._running: dict[int, asyncio.Task[None]] = {}

    def on_change(self, change: JobChange) -> None:
        """Stop or finish the attempt of a job if the change requests it, and run a round."""
        task = self._running.get(change.job_key)
        # A second cancellation would interrupt the attempt while it stops its worker.
        if change.stop and task is not None and not task.cancelling():
            task.cancel()
        if change.finish:
            self._attempts.finish(change.job_key)
        self._wake.set()

    def on_gap(self) -> None:
        """Run a round that also looks for active jobs without an attempt in this server.

        Such jobs exist if the connection to the database was lost while an attempt started.
        """
        self._check_active = True
        self._wake.set()

    def take_over(self, record: JobRecord, worker: WorkerHandle) -> None:
        """Follow an attempt that an earlier server started."""
        self._follow(record, self._attempts.take_over(record, worker))

    async def run(self) -> None:
        """Schedule until cancelled. Call `close` after that."""
        while True:
            self._wake.clear()
            try:
                await self._run_round()
            except DomainError as error:
                _log.warning("cannot schedule: %s", error)
            try:
                # Do not use asyncio.wait_for. In Python 3.11, it can lose a cancellation that arrives together with a
                # change.
                async with asyncio.timeout(_INTERVAL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                self.on_gap()

    async def close(self) -> None:
        """Stop following attempts. `Attempts.end` determines whether the workers continue."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run_round(self) -> None:
        if self._check_active:
            self._check_active = False
            await wait_for_space(lambda _waited: self._records.requeue_active(except_keys=self._running.keys()))
        free: dict[DeviceKind, int] = {"cpu": self._pool.free("cpu"), "gpu": self._pool.free("gpu")}
        if not any(free.values()):
            return
        # The first queued jobs are usually those that start. Reading many jobs in every round would take long.
        first = sum(free.values())
        chosen, considered = await self._next_jobs(free, first)
        if len(chosen) < first <= considered:
            chosen, _ = await self._next_jobs(free, _MAX_QUEUED)
        for record, device in chosen:
            self._follow(record, self._attempts.run(record, device))

    async def _next_jobs(
        self, free: dict[DeviceKind, int], most: int
    ) -> tuple[list[tuple[JobRecord, DeviceKind]], int]:
        """Choose the jobs to start among at most `most` queued jobs. Returns also how many jobs it considered."""
        queued = await self._records.queued(most, except_keys=self._running.keys())
        waiting = [(record, self._pool.device_for(record.job.spec.device)) for record in queued]
        if any(is_suspect(record) for record in queued):
            runs = bool(await self._records.suspects(self._running.keys()))
            waiting = without_further_suspects(waiting, is_suspect, suspect_runs=runs)
        return next_jobs(waiting, free), len(queued)

    def _follow(self, record: JobRecord, attempt: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(attempt, name=record.job.name)
        self._running[record.job_key] = task
        task.add_done_callback(partial(self._on_attempt_end, record))

    def _on_attempt_end(self, record: JobRecord, task: asyncio.Task[None]) -> None:
        del self._running[record.job_key]
        if not task.cancelled() and task.exception() is not None:
            # The next round tries again. Do not start it now, because it would probably fail immediately.
            _log.error("cannot start an attempt of %s", record.job.name, exc_info=task.exception())
            return
        self._wake.set()
