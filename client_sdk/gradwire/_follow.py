"""Follows the logs of several jobs at once, and finds out why a job is waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwire._blocking import Stream
from gradwire._exceptions import GradwireError
from gradwire._watch import watch
from gradwire_engine.formatting import plural
from gradwire_proto.v1.training_service_pb2 import GetJobRequest, JobState, ListWorkersRequest

if TYPE_CHECKING:
    from gradwire._job import AsyncJob, Job
    from gradwire._transport import Transport
    from gradwire_proto.v1.training_service_pb2 import Event

_WAITING = (JobState.JOB_STATE_QUEUED, JobState.JOB_STATE_STARTING)
# How often to ask why a job is waiting, in seconds.
_ASK_SECONDS = 2.0
# Ask for the first time sooner, but not before a job on an idle server has started.
_FIRST_ASK_SECONDS = 0.5


@dataclass(frozen=True)
class Update:
    """Something new about a job.

    Attributes:
        job: The position of the job in the list of jobs.
        event: An event of its log, or None.
        waiting: Why the job is waiting, or None.
    """

    job: int
    event: Event | None = None
    waiting: str | None = None


def follow(jobs: Sequence[Job], *, ask: bool = True) -> Stream[Update]:
    """Yield the events of jobs as they arrive, until all jobs have ended.

    Args:
        jobs: One or more jobs.
        ask: Whether to ask the server, every few seconds, why a queued job is waiting.
    """
    return Stream(_follow([job._async for job in jobs], ask), jobs[0]._portal)


async def _follow(jobs: Sequence[AsyncJob], ask: bool) -> AsyncGenerator[list[Update], None]:
    # The queue is bounded, so that a long log cannot fill the memory if the display is slow.
    queue: asyncio.Queue[list[Update] | GradwireError | None] = asyncio.Queue(maxsize=16)
    tasks = [asyncio.create_task(_read_log(index, job, queue, ask)) for index, job in enumerate(jobs)]
    try:
        ended = 0
        while ended < len(jobs):
            item = await queue.get()
            if isinstance(item, GradwireError):
                raise item
            if item is None:
                ended += 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_log(
    index: int, job: AsyncJob, queue: asyncio.Queue[list[Update] | GradwireError | None], ask: bool
) -> None:
    """Put the events of a job into the queue, and then None, or the error that ended the watch."""
    name = f"jobs/{job.name}"
    asking: asyncio.Task[None] | None = None
    try:
        async for events in watch(job._transport, name, 0):
            if asking is not None:
                asking.cancel()
                asking = None
            await queue.put([Update(index, event=event) for event in events])
            if ask and events[-1].state_change.state in _WAITING:
                asking = asyncio.create_task(_ask(index, job._transport, name, queue))
        await queue.put(None)
    except GradwireError as error:
        await queue.put(error)
    finally:
        if asking is not None:
            asking.cancel()


async def _ask(
    index: int, transport: Transport, name: str, queue: asyncio.Queue[list[Update] | GradwireError | None]
) -> None:
    """Repeatedly put the reason why a job is waiting into the queue."""
    delay = _FIRST_ASK_SECONDS
    while True:
        await asyncio.sleep(delay)
        delay = _ASK_SECONDS
        try:
            reason = await waiting_reason(transport, name)
        except GradwireError:  # The watch reports what is wrong with the connection.
            continue
        await queue.put([Update(index, waiting=reason)])


async def waiting_reason(transport: Transport, name: str) -> str:
    """Return why a job, "jobs/{job_id}", has not started to train, for example "waits: all CPU workers are busy"."""
    job = await transport.call(transport.training.GetJob, GetJobRequest(name=name))
    if job.state == JobState.JOB_STATE_STARTING:
        return "a worker prepares the data"
    if job.state != JobState.JOB_STATE_QUEUED:
        return ""
    response = await transport.call(transport.training.ListWorkers, ListWorkersRequest())
    for queued in response.queued_jobs:
        if queued.name == name:
            return f"waits: {queued.reason}"
    return f"waits in a queue of {plural(response.queue_length, 'job')}" if response.queue_length else ""
