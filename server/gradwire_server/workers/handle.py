"""A handle for one worker, through which the server calls the worker.

Calls to an actor fail if its process or node dies. Calls to Ray itself, such as looking up or killing an actor, run in
threads, because they never return if the cluster is lost.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.storage.blob_store import BlobStore
from gradwire_worker.log_tail import last_lines
from gradwire_worker.messages import Assignment, Report, unpack

# The time that a worker has to stop an attempt before it is killed.
_STOP_SECONDS = 10
# The time that an idle worker has to answer before it counts as dead.
PING_SECONDS = 5
# A worker that answered this recently is not asked again, unless another worker has been lost since. If it has died,
# its next attempt is lost, and the job continues on another worker.
_ANSWERED_RECENTLY_SECONDS = 0.5

DeviceKind = Literal["cpu", "gpu"]


class WorkerLostError(RuntimeError):
    """The process of a worker, its node or the cluster is lost, or a call to it failed."""


@dataclass(eq=False)
class WorkerHandle:
    """A warm actor.

    Attributes:
        name: The name of the actor.
        device: The kind of device that the worker runs on.
        actor: The Ray handle of the actor.
        reads_blobs: Whether the worker can read the blob store. If not, tensors are sent through Ray's object store.
        log: The ID of the worker's node, and the path of the worker's log on that node.
        assigned: The job and the number of the last attempt that was sent to the worker.
        answered: The time of the worker's last answer, on the monotonic clock.
    """

    name: str
    device: DeviceKind
    actor: Any = field(repr=False)
    reads_blobs: bool
    log: tuple[str, str]
    assigned: tuple[str, int] | None = None
    answered: float = field(default_factory=time.monotonic)

    @classmethod
    async def connect(cls, name: str, device: DeviceKind, actor: Any, blobs: BlobStore) -> "WorkerHandle":
        """Get information from an actor and return a handle for it."""
        reads_blobs = await call_actor(actor.can_read.remote(blobs.url, blobs.probe))
        return cls(name, device, actor, reads_blobs, await call_actor(actor.own_log.remote()))

    async def start(
        self, assignment: Assignment, references: list[TensorRef], blobs: BlobStore, timeout: float
    ) -> list[Report]:
        """Start an attempt and return its first reports.

        Args:
            assignment: The attempt.
            references: The tensors of its job.
            blobs: Where the tensors are stored.
            timeout: The maximum time to wait for a report, in seconds.

        Raises:
            WorkerLostError: The worker does not answer.
        """
        tensors = None
        if not self.reads_blobs:
            # Ray's object store sends each tensor to a node only once, and workers map the tensor into memory there.
            arrays = await asyncio.to_thread(lambda: {ref.sha256: blobs.load(ref) for ref in references})
            tensors = ray.put(arrays)
        self.assigned = (assignment.job, assignment.attempt)
        return unpack(await self._call(self.actor.start_and_poll.remote(assignment, tensors, timeout)))

    async def poll(self, job_name: str, attempt: int, after: int, timeout: float) -> list[Report]:
        """Return the reports of an attempt after a sequence number and acknowledge all reports up to this number.

        Args:
            job_name: The job.
            attempt: The number of the attempt.
            after: The sequence number of the last stored report.
            timeout: The maximum time to wait for a report, in seconds.
        """
        return unpack(await self._call(self.actor.poll.remote(job_name, attempt, after, timeout)))

    async def stop(self, job_name: str, attempt: int) -> None:
        """Stop an attempt. Raises WorkerLostError, or TimeoutError if the worker does not stop in time.

        An attempt that was cancelled before it was sent does not have to be stopped.
        """
        if self.assigned != (job_name, attempt):
            return
        async with asyncio.timeout(_STOP_SECONDS):
            await self._call(self.actor.stop.remote(job_name, attempt))

    async def finish(self, job_name: str, attempt: int) -> None:
        """Make an attempt end its job after the current epoch. Raises WorkerLostError."""
        await call_actor(self.actor.finish.remote(job_name, attempt))

    async def is_alive(self) -> bool:
        """Return whether the worker answers, or has just answered."""
        if time.monotonic() - self.answered < _ANSWERED_RECENTLY_SECONDS:
            return True
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._call(self.actor.ping.remote())
        except (WorkerLostError, TimeoutError):
            return False
        return True

    async def log_tail(self) -> str:
        """Return the end of the worker's log, even if the worker is dead, or an empty string if its node is lost."""
        node, path = self.log
        on_node = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            async with asyncio.timeout(PING_SECONDS):
                read = ray.remote(last_lines).options(num_cpus=0, scheduling_strategy=on_node, max_retries=0)
                lines: str = await call_actor(read.remote(path))
        except (WorkerLostError, TimeoutError):
            return ""
        return lines

    async def _call(self, reference: Any) -> Any:
        """Wait for the result of a call to the worker. Raises WorkerLostError."""
        result = await call_actor(reference)
        self.answered = time.monotonic()
        return result


async def call_actor(reference: Any) -> Any:
    """Wait for the result of a call to an actor. Raises WorkerLostError if the call failed."""
    try:
        return await reference
    except RayError as error:
        raise WorkerLostError(_first_line(error)) from error


def kill_actor(name: str) -> None:
    """Kill an actor if it exists. This function blocks."""
    with suppress(ValueError):
        ray.kill(ray.get_actor(name))


def ping_actor(name: str) -> None:
    """Ping an actor if it exists, so that it knows that it is still needed. This function blocks."""
    with suppress(ValueError):
        ray.get_actor(name).ping.remote()


def _first_line(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0]}"
