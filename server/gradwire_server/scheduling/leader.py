"""Who leads, schedules: the server that holds the lease. One that gets it goes on with what the one before has left."""

import asyncio
import logging
from collections.abc import Callable

from gradwire_server.errors import ServiceError
from gradwire_server.jobs.commands import Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.lease import Lease, LeaseLostError
from gradwire_server.scheduling.loop import Scheduler
from gradwire_server.storage.garbage_collector import Collector
from gradwire_server.workers.ray_cluster import Runner, WorkerLostError

_log = logging.getLogger(__name__)

# How long a server waits that could not take over, because the database is away for instance.
_RETRY_SECONDS = 1.0


class Leader:
    """Waits for the lease, schedules while it is held, and waits again."""

    def __init__(
        self,
        lease: Lease,
        jobs: Jobs,
        runner: Runner,
        changes: Changes,
        collector: Collector,
        make_attempts: Callable[[], Attempts],
    ) -> None:
        self._lease = lease
        self._jobs = jobs
        self._runner = runner
        self._changes = changes
        self._collector = collector
        self._make_attempts = make_attempts
        # Set once jobs that are submitted here will run: elsewhere, or here, where workers are warm then.
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Lead whenever nobody else does, until cancelled; then hand over."""
        while True:
            try:
                await self._wait_for_turn()
                await self._lead()
            except* LeaseLostError as lost:
                _log.warning("this server does not schedule any more: %s", lost.exceptions[0])
            except* ServiceError as away:
                _log.warning("this server cannot schedule: %s", away.exceptions[0])
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                await self._lease.give_back()

    async def _wait_for_turn(self) -> None:
        if not await self._lease.try_take():
            _log.info("%s schedules; this server serves, and waits for its turn", await self._lease.holder())
            self.ready.set()
            await self._lease.take()

    async def _lead(self) -> None:
        attempts = self._make_attempts()
        scheduler = Scheduler(self._jobs, self._runner, attempts)
        leave_workers = self._runner.outlives_server
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lease.keep())
                await self._take_over(scheduler)
                await self._runner.warm_up()
                self._changes.scheduler = scheduler
                self.ready.set()
                tasks.create_task(self._runner.tend())
                tasks.create_task(self._collector.run())
                tasks.create_task(scheduler.run())
        finally:
            self._changes.scheduler = None
            attempts.end(leave_workers=leave_workers)
            await scheduler.close()
            self._runner.forget()

    async def _take_over(self, scheduler: Scheduler) -> None:
        """Follow the attempts whose workers live; other ones begin anew."""
        workers = await self._runner.find_running()
        followed = set()
        for row in await self._jobs.unfinished():
            worker = workers.pop((row.message.name, row.message.attempt), None)
            if worker is not None:
                _log.info("%s goes on in attempt %d", row.message.name, row.message.attempt)
                scheduler.take_over(row, worker)
                followed.add(row.id)
        for (job, attempt), worker in workers.items():
            # The job was cancelled or paused, or its end was stored just before the earlier server went.
            try:
                await self._runner.stop(worker, job, attempt)
                self._runner.release(worker)
            except (WorkerLostError, TimeoutError):
                self._runner.discard(worker)
        await self._jobs.requeue_unfinished(but=followed)
