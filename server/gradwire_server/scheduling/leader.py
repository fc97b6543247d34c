"""The leader, which holds the lease, schedules jobs, and continues the work of the previous leader."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gradwire_server.errors import DomainError
from gradwire_server.jobs.attempt_records import AttemptRecords
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.lease import Lease, LeaseLostError
from gradwire_server.scheduling.loop import Scheduler
from gradwire_server.storage.disk_space import wait_for_space
from gradwire_server.storage.garbage_collector import GarbageCollector
from gradwire_server.workers.handle import WorkerLostError
from gradwire_server.workers.pool import WorkerPool

_log = logging.getLogger(__name__)

# The time that a server waits after it failed to lead, for example because the database did not respond.
_RETRY_SECONDS = 1.0


@dataclass(eq=False)
class Leader:
    """Waits for the lease, schedules while this server holds it, and waits again.

    Attributes:
        leave_workers: Whether workers continue for the next server when this server is no longer scheduling.
        new_attempts: A function that creates the object that runs attempts. It is called each time this server leads.
        scheduler: The scheduler while this server leads, otherwise None.
        ready: Set as soon as submitted jobs can run, because another server schedules or this server has a warm worker.
    """

    lease: Lease
    records: AttemptRecords
    pool: WorkerPool
    notifier: JobNotifier
    garbage_collector: GarbageCollector
    leave_workers: bool
    new_attempts: Callable[[], Attempts]
    scheduler: Scheduler | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Lead whenever no other server leads, until cancelled."""
        while True:
            try:
                await self._wait_for_lease()
                await self._lead()
            except* LeaseLostError as lost:
                await self.lease.mark_orderly()
                _log.warning("this server no longer schedules: %s", lost.exceptions[0])
            except* DomainError as failed:
                await self.lease.mark_orderly()
                _log.warning("this server cannot schedule: %s", failed.exceptions[0])
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                await self.lease.release()

    async def _wait_for_lease(self) -> None:
        if not await self.lease.try_acquire():
            _log.info("%s holds the lease. This server answers calls and waits for it", await self.lease.holder())
            self.ready.set()
            await self.lease.acquire()

    async def _lead(self) -> None:
        attempts = self.new_attempts()
        scheduler = Scheduler(self.records, self.pool, attempts)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.lease.keep_renewing())
                await self._take_over(scheduler)
                await self.pool.warm_up()
                with self.notifier.subscribed(scheduler):
                    self.scheduler = scheduler
                    self.ready.set()
                    tasks.create_task(self.pool.keep_alive())
                    tasks.create_task(self.garbage_collector.run())
                    await scheduler.run()
        finally:
            self.scheduler = None
            attempts.end(leave_workers=self.leave_workers)
            await scheduler.close()
            self.pool.forget()

    async def _take_over(self, scheduler: Scheduler) -> None:
        """Follow attempts with workers that are still running, and put all other active jobs back into the queue."""
        workers = await self.pool.adopt_workers()
        followed = set()
        for record in await self.records.active():
            worker = workers.pop((record.job.name, record.job.attempt), None)
            if worker is not None:
                _log.info("%s continues in attempt %d", record.job.name, record.job.attempt)
                scheduler.take_over(record, worker)
                followed.add(record.job_key)
        for (job_name, attempt), worker in workers.items():
            # The job was cancelled or paused, or it ended just before the earlier server ended.
            try:
                await worker.stop(job_name, attempt)
                self.pool.release(worker)
            except (WorkerLostError, TimeoutError):
                self.pool.discard(worker)
        crashed = self.lease.after_crash
        await wait_for_space(lambda _waited: self.records.requeue_active(except_keys=followed, after_crash=crashed))
