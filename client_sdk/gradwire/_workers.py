"""The workers and the queue of a server, as `client.workers()` returns them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gradwire_engine.formatting import plural
from gradwire_proto.v1.training_service_pb2 import ListWorkersResponse


@dataclass(frozen=True)
class WorkerInfo:
    """A worker.

    Attributes:
        job: The name of the job that the worker runs, or None if the worker is idle.
        attempt: The number of the attempt that the worker runs, or 0.
        device: "cpu" or "gpu", or an empty string until the job's attempt has started to run.
        host: The host name of the worker's node, or an empty string until the job's attempt has started to run.
    """

    job: str | None
    attempt: int
    device: str
    host: str


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue.

    Attributes:
        name: The job's name, for example "digits".
        created: The time at which the job was created.
        reason: Why the job waits.
    """

    name: str
    created: datetime
    reason: str


@dataclass(frozen=True, repr=False)
class WorkersInfo:
    """The workers and the queue of a server at the time of its response.

    Attributes:
        workers: The workers that run jobs, followed by idle workers: at most 1000.
        busy: The number of all workers that run jobs.
        idle: The number of all idle workers.
        startable: The number of workers that are not running, and that the server starts when jobs need them.
        queue: The first jobs in the queue, in order: at most 100.
        queued: The number of all queued jobs.
        complete: Whether the server schedules the jobs. If not, another server on the same database does, and the idle
            and startable workers are unknown.
    """

    workers: tuple[WorkerInfo, ...]
    busy: int
    idle: int
    startable: int
    queue: tuple[QueuedJob, ...]
    queued: int
    complete: bool

    @property
    def summary(self) -> str:
        """The numbers of workers and queued jobs, for example "2 busy, 1 idle, 3 can be started, 5 jobs queued"."""
        workers = f"{self.idle} idle, {self.startable} can be started" if self.complete else "others unknown"
        return f"{self.busy} busy, {workers}, {plural(self.queued, 'job')} queued"

    def __repr__(self) -> str:
        return f"WorkersInfo({self.summary})"

    def _repr_html_(self) -> str:
        from gradwire._notebook import workers_html  # noqa: PLC0415  (only for notebooks)

        return workers_html(self)


def workers_info(response: ListWorkersResponse) -> WorkersInfo:
    """Convert a response to a WorkersInfo."""
    return WorkersInfo(
        workers=tuple(
            WorkerInfo(each.job.removeprefix("jobs/") or None, each.attempt, each.device, each.host)
            for each in response.workers
        ),
        busy=response.busy_workers,
        idle=response.idle_workers,
        startable=response.startable_workers,
        queue=tuple(
            QueuedJob(each.name.removeprefix("jobs/"), each.create_time.ToDatetime(tzinfo=UTC), each.reason)
            for each in response.queued_jobs
        ),
        queued=response.queue_length,
        complete=response.complete,
    )
