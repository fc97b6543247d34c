"""The pool of warm workers, which creates workers up to the capacity of the cluster, and lends them to attempts."""

import asyncio
import hashlib
import logging
import math
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError

from gradwire_proto.v1.spec_pb2 import Device
from gradwire_server.settings import Settings
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.workers.handle import (
    PING_SECONDS,
    DeviceKind,
    WorkerHandle,
    WorkerLostError,
    call_actor,
    kill_actor,
    ping_actor,
)
from gradwire_server.workers.ray_cluster import RayCluster
from gradwire_worker.trainer import Trainer

_log = logging.getLogger(__name__)

# The calls start, poll and stop can run at the same time.
_MAX_CONCURRENT_CALLS = 8
# A worker exits if no server calls it for this many seconds. Servers ping workers ten times in this interval.
_ABANDONED_SECONDS = 900.0


@dataclass(frozen=True)
class IdleWorker:
    """A worker that waits for an attempt, and the host name of its node, which is empty if it is not known yet."""

    device: DeviceKind
    host: str


class WorkerPool:
    """Warm workers, which are idle or lent to an attempt. Only the scheduling server uses its pool."""

    def __init__(self, settings: Settings, cluster: RayCluster, blobs: BlobStore) -> None:
        self._settings = settings
        self._cluster = cluster
        self._blobs = blobs
        # Idle workers, by kind. An error represents a worker that could not be created.
        self._idle: dict[DeviceKind, asyncio.Queue[WorkerHandle | WorkerLostError]] = {
            "cpu": asyncio.Queue(),
            "gpu": asyncio.Queue(),
        }
        # The same workers without the errors, by name.
        self._resting: dict[str, WorkerHandle] = {}
        # The number of workers that exist or are being created, and the number of workers that are lent or requested.
        self._existing: dict[DeviceKind, int] = {"cpu": 0, "gpu": 0}
        self._lent: dict[DeviceKind, int] = {"cpu": 0, "gpu": 0}
        self._background: set[asyncio.Task[None]] = set()
        # The names of all workers of this server, whether idle, lent or being created.
        self._names: set[str] = set()
        self._created = 0
        # A worker's name contains a hash of the blob store's URL, so that a server can find the workers that an earlier
        # server with the same store left running. It also contains the version of the code, because workers with
        # another version are replaced.
        self._store_prefix = f"trainer-{hashlib.sha256(blobs.url.encode()).hexdigest()[:12]}-"
        self._name_prefix = f"{self._store_prefix}{version('gradwire')}-"

    def device_for(self, device: Device) -> DeviceKind:
        """Return the kind of worker for a job.

        DEVICE_AUTO selects a GPU if the cluster has one and the plan that workers must use runs on it.
        """
        if device == Device.DEVICE_CPU or not self._cluster.has_gpu:
            return "cpu"
        return "cpu" if device != Device.DEVICE_GPU and self._settings.plan == "compiled" else "gpu"

    def free(self, device: DeviceKind) -> int:
        """Return the number of workers of a kind that can be lent now."""
        return max(0, self._cluster.capacity(device) - self._lent[device])

    def capacity(self, device: DeviceKind) -> int:
        """Return the number of workers of a kind that the cluster has room for."""
        return self._cluster.capacity(device)

    def startable(self) -> int:
        """Return the number of workers that can be created in addition to those that exist."""
        return sum(max(0, self.capacity(device) - existing) for device, existing in self._existing.items())

    def idle(self) -> list[IdleWorker]:
        """Return the workers that wait for an attempt."""
        return [
            IdleWorker(worker.device, self._cluster.host_of(node=worker.log[0])) for worker in self._resting.values()
        ]

    async def warm_up(self) -> None:
        """Create one worker of each kind that the cluster has capacity for."""
        devices: tuple[DeviceKind, DeviceKind] = ("cpu", "gpu")
        for device in devices:
            if self.free(device):
                self.release(await self.acquire(device))

    async def acquire(self, device: DeviceKind) -> WorkerHandle:
        """Lend an idle or new worker. The caller must `release` or `discard` the worker.

        Raises:
            WorkerLostError: A worker cannot be created.
        """
        self._lent[device] += 1
        self._create_missing(device)
        try:
            while True:
                worker = await self._idle[device].get()
                if isinstance(worker, WorkerLostError):
                    raise worker
                self._resting.pop(worker.name, None)
                try:
                    if await worker.is_alive():
                        return worker
                except asyncio.CancelledError:
                    self._rest(worker)
                    raise
                self._names.discard(worker.name)
                self._existing[device] -= 1
                self._create_missing(device)
        except BaseException:
            self._lent[device] -= 1
            raise

    def release(self, worker: WorkerHandle) -> None:
        """Take back a healthy worker."""
        self._lent[worker.device] -= 1
        self._rest(worker)

    def discard(self, worker: WorkerHandle) -> None:
        """Kill a lent worker that is not healthy."""
        # Whatever has ended this worker, for example the loss of its node, may have ended others too.
        for other in self._resting.values():
            other.answered = -math.inf
        self._run(asyncio.to_thread(kill_actor, worker.name))
        self._names.discard(worker.name)
        self._lent[worker.device] -= 1
        self._existing[worker.device] -= 1
        self._create_missing(worker.device)

    async def adopt_workers(self) -> dict[tuple[str, int], WorkerHandle]:
        """Take over the workers of an earlier server. Return those that run attempts, keyed by job name and attempt.

        The returned workers count as lent, as with `acquire`. Other workers become idle. Workers that do not answer
        or have another version are killed.
        """
        running: dict[tuple[str, int], WorkerHandle] = {}
        for name in await asyncio.to_thread(ray.util.list_named_actors):
            if not name.startswith(self._store_prefix):
                continue
            try:
                worker, attempt = await self._adopt(name)
            except (
                WorkerLostError,
                TimeoutError,
                ValueError,
            ) as error:  # ValueError means that the actor has just ended.
                _log.warning("killing worker %s of an earlier server: %s", name, error)
                await asyncio.to_thread(kill_actor, name)
                continue
            self._names.add(name)
            self._existing[worker.device] += 1
            self._lent[worker.device] += 1
            if attempt is None or attempt in running:
                self.release(worker)
            else:
                running[attempt] = worker
        return running

    def forget(self) -> None:
        """Give up all workers, because another server now holds the lease. It adopts the workers that keep running."""
        for task in self._background:
            task.cancel()
        if not self._cluster.outlives_server:
            for name in self._names:
                self._run(asyncio.to_thread(kill_actor, name))
        self._names.clear()
        self._resting.clear()
        for device in self._idle:
            self._idle[device] = asyncio.Queue()
            self._existing[device] = self._lent[device] = 0

    async def keep_alive(self) -> NoReturn:
        """Until cancelled, ping the workers of this server, and kill workers of this store that no server uses."""
        while True:
            await asyncio.sleep(_ABANDONED_SECONDS / 10)
            try:
                for name in await asyncio.to_thread(ray.util.list_named_actors):
                    if name in self._names:
                        await asyncio.to_thread(ping_actor, name)
                    elif name.startswith(self._store_prefix):
                        _log.warning("killing worker %s, which no server uses", name)
                        await asyncio.to_thread(kill_actor, name)
            except RayError as error:
                _log.warning("cannot ping workers: %s", error)

    async def _adopt(self, name: str) -> tuple[WorkerHandle, tuple[str, int] | None]:
        """Return a worker of an earlier server, and the attempt that it runs."""
        if not name.startswith(self._name_prefix):
            raise WorkerLostError("it runs another version of gradwire")
        actor = await asyncio.to_thread(ray.get_actor, name)
        async with asyncio.timeout(PING_SECONDS):
            attempt = await call_actor(actor.running.remote())
            device: DeviceKind = "gpu" if name.endswith("-gpu") else "cpu"
            worker = await WorkerHandle.connect(name, device, actor, self._blobs)
            worker.assigned = attempt
            return worker, attempt

    def _create_missing(self, device: DeviceKind) -> None:
        """Start creating workers for waiting callers, as far as the cluster has capacity."""
        while self._existing[device] < min(self._lent[device], self._cluster.capacity(device)):
            self._existing[device] += 1
            self._run(self._create(device))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in the background."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _create(self, device: DeviceKind) -> None:
        self._created += 1
        name = f"{self._name_prefix}{secrets.token_hex(4)}-{self._created}-{device}"
        self._names.add(name)
        # A GPU driver reserves more memory than it uses, so a limit would not be meaningful.
        memory = self._cluster.job_memory if device == "cpu" else 0
        try:
            create = ray.remote(Trainer).options(
                name=name,
                lifetime="detached",
                num_cpus=self._settings.cpus_per_job,
                num_gpus=self._settings.gpus_per_job if device == "gpu" else 0,
                memory=self._cluster.worker_memory or None,
                max_concurrency=_MAX_CONCURRENT_CALLS,
                runtime_env={"env_vars": self._environment(device)},
            )
            actor = await asyncio.to_thread(create.remote, _ABANDONED_SECONDS, memory)
            worker = await WorkerHandle.connect(name, device, actor, self._blobs)
        except (WorkerLostError, RayError) as error:
            self._names.discard(name)
            self._existing[device] -= 1
            self._idle[device].put_nowait(WorkerLostError(f"cannot start a worker: {error}"))
            return
        how = "" if worker.reads_blobs else ", data through Ray's object store"
        _log.info("worker %s is ready (%s%s)", name, device, how)
        self._rest(worker)

    def _rest(self, worker: WorkerHandle) -> None:
        """Let a healthy worker wait for an attempt."""
        self._resting[worker.name] = worker
        self._idle[worker.device].put_nowait(worker)

    def _environment(self, device: DeviceKind) -> dict[str, str]:
        threads = str(max(1, int(self._settings.cpus_per_job)))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        variables["GRADWIRE_PLAN"] = self._settings.plan
        variables["GRADWIRE_TF32"] = "1" if self._settings.tf32 else ""
        if device == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""
        return variables
