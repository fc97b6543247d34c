"""Which job next: the policy, a pure function, and the loop that asks it and starts attempts."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import TypeVar

from gradwire_server.errors import ServiceError
from gradwire_server.jobs.commands import Jobs
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.store.notifications import Change
from gradwire_server.store.queries import JobRow
from gradwire_server.workers.ray_cluster import Pool, Runner, Worker

_log = logging.getLogger(__name__)

# Jobs that are looked at in one round; the rest of a long queue is not read.
_LOOK_AHEAD = 100
# How often everything is looked at, whether or not anyone has said that something changed.
_LOOK_SECONDS = 5.0

JobT = TypeVar("JobT")


def next_jobs(queued: Sequence[tuple[JobT, Pool]], free: Mapping[Pool, int]) -> list[tuple[JobT, Pool]]:
    """Choose which jobs to start: in order of arrival, as many as each pool has room for."""
    left = dict(free)
    chosen = []
    for job, pool in queued:
        if left[pool] > 0:
            left[pool] -= 1
            chosen.append((job, pool))
    return chosen


class Scheduler:
    """Starts queued jobs as soon as there is room, and stops those that nobody wants to run any more."""

    def __init__(self, jobs: Jobs, runner: Runner, attempts: Attempts) -> None:
        self._jobs = jobs
        self._runner = runner
        self._attempts = attempts
        self._changed = asyncio.Event()
        self._look_at_all = False
        self._running: dict[int, asyncio.Task[None]] = {}

    def react(self, change: Change) -> None:
        """Look at the queue again; take the job's attempt off its worker where that is asked for."""
        if change.stop and change.job in self._running:
            self._running[change.job].cancel()
        self._changed.set()

    def look_at_all(self) -> None:
        """Look at everything again, and for attempts that nobody follows: the database may have gone as one began."""
        self._look_at_all = True
        self._changed.set()

    def take_over(self, row: JobRow, worker: Worker) -> None:
        """Follow an attempt that an earlier server has started."""
        self._follow(row, self._attempts.take_over(row, worker))

    async def run(self) -> None:
        """Schedule until cancelled; `close` then ends what runs."""
        while True:
            self._changed.clear()
            try:
                await self._look()
            except ServiceError as error:
                _log.warning("cannot schedule: %s", error)
            try:
                # Not wait_for, which in Python 3.11 can lose a cancellation that comes together with a change.
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                self.look_at_all()

    async def close(self) -> None:
        """Follow nothing any more; whether the workers go on is said in `Attempts.end`."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _look(self) -> None:
        if self._look_at_all:
            self._look_at_all = False
            await self._jobs.requeue_unfinished(but=self._running.keys())
        free: dict[Pool, int] = {"cpu": self._runner.free("cpu"), "gpu": self._runner.free("gpu")}
        if not any(free.values()):
            return
        waiting = [row for row in await self._jobs.queued(_LOOK_AHEAD) if row.id not in self._running]
        queued = [(row, self._runner.pool_for(row.message.spec.device)) for row in waiting]
        for row, pool in next_jobs(queued, free):
            self._follow(row, self._attempts.run(row, pool))

    def _follow(self, row: JobRow, attempt: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(attempt, name=row.message.name)
        self._running[row.id] = task
        task.add_done_callback(partial(self._ended, row))

    def _ended(self, row: JobRow, task: asyncio.Task[None]) -> None:
        del self._running[row.id]
        if not task.cancelled() and task.exception() is not None:
            # The job is looked at again a little later, not in a tight loop.
            _log.error("no attempt of %s could be made", row.message.name, exc_info=task.exception())
            return
        self._changed.set()
