"""Which job next: the policy, a pure function, and the loop that asks it and starts attempts."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import TypeVar

from gradwire_server.attempts import Attempts
from gradwire_server.jobs import Jobs
from gradwire_server.runner import Pool, Runner, Worker
from gradwire_server.store.queries import JobRow

_log = logging.getLogger(__name__)

# Jobs that are looked at in one round; the rest of a long queue is not read.
_LOOK_AHEAD = 100
# How often the cluster's room is measured while nothing else happens.
_MEASURE_SECONDS = 5.0

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
    """Starts queued jobs as soon as there is room. `wake` it when a job has come."""

    def __init__(self, jobs: Jobs, runner: Runner, attempts: Attempts) -> None:
        self._jobs = jobs
        self._runner = runner
        self._attempts = attempts
        self._changed = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look at the queue again."""
        self._changed.set()

    def take_over(self, row: JobRow, worker: Worker) -> None:
        """Follow an attempt that an earlier server has started."""
        self._follow(row, self._attempts.take_over(row, worker))

    def stop(self, job: int) -> None:
        """Take the job's attempt off its worker, if it runs here."""
        if job in self._running:
            self._running[job].cancel()

    async def run(self) -> None:
        """Schedule until cancelled; then stop what runs."""
        try:
            while True:
                self._changed.clear()
                await self._start_jobs()
                try:
                    # Not wait_for, which in Python 3.11 can lose a cancellation that comes together with a change.
                    async with asyncio.timeout(_MEASURE_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    await asyncio.to_thread(self._runner.measure)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _start_jobs(self) -> None:
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
            # The job is still queued, and is tried again with the next measurement, not in a tight loop.
            _log.error("no attempt of %s could be made", row.message.name, exc_info=task.exception())
            return
        self.wake()
