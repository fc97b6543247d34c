"""Ray: the cluster's room, its workers, and the calls to them. No other file of the server speaks to Ray.

Whatever Ray does itself, and not a worker, runs in a thread: where the cluster is lost, such a call never comes back.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import socket
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gradwire_proto.v1.spec_pb2 import Device
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.settings import Settings, SettingsError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_worker.log_tail import last_lines
from gradwire_worker.messages import Assignment, Report, unpack
from gradwire_worker.trainer import Trainer

_log = logging.getLogger(__name__)

_NAMESPACE = "gradwire"
# start, poll and stop may be under way together.
_CALLS_AT_ONCE = 8
# How long a worker may take to stop before it is ended.
_STOP_SECONDS = 10
# How long an idle worker may take to answer before it counts as dead.
_ANSWER_SECONDS = 5
# How long a cluster's head may take to accept a connection.
_REACH_SECONDS = 5
# How often the cluster is looked at, and how often in a row its head may not answer before it counts as lost.
_LOOK_SECONDS = 3.0
_MOST_UNANSWERED = 3
# A worker that no server calls for so long ends itself; all are called ten times as often.
_FORSAKEN_SECONDS = 900.0
# Ray sends its token to an address only when it is told to, and names no reason when it is turned away.
_AUTH_HINT = "; if the cluster asks for Ray's token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"

Pool = Literal["cpu", "gpu"]


class WorkerLostError(RuntimeError):
    """The worker's process, its node or the cluster is gone, or a call to it failed."""


class ClusterLostError(RuntimeError):
    """Ray's head does not answer any more. A process can join a cluster once in its life: this one has to end."""


@dataclass(eq=False)
class Worker:
    """A warm actor. `reads_blobs` says whether it reaches the blob store itself."""

    name: str
    pool: Pool
    actor: Any = field(repr=False)
    reads_blobs: bool
    # Its node, and the file there that its log goes to.
    log: tuple[str, str]


class Runner:
    """Keeps workers warm, as many as the cluster has room for, and lends each to one attempt at a time."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._settings = settings
        self._blobs = blobs
        # Workers that wait for an attempt; an error stands for one that could not be made.
        self._idle: dict[Pool, asyncio.Queue[Worker | WorkerLostError]] = {
            "cpu": asyncio.Queue(),
            "gpu": asyncio.Queue(),
        }
        # Workers that are there or being made, those that are lent or waited for, and the room for them.
        self._workers: dict[Pool, int] = {"cpu": 0, "gpu": 0}
        self._lent: dict[Pool, int] = {"cpu": 0, "gpu": 0}
        self._capacity: dict[Pool, int] = {"cpu": 0, "gpu": 0}
        self._background: set[asyncio.Task[None]] = set()
        # The names of all workers of this server's, idle, lent or being made.
        self._names: set[str] = set()
        self._made = 0
        # Workers are named after the store that they work for, so that a server finds those that another one left, and
        # after the version of their code: those of another version are ended and replaced.
        self._store_prefix = f"trainer-{hashlib.sha256(blobs.url.encode()).hexdigest()[:12]}-"
        self._name_prefix = f"{self._store_prefix}{version('gradwire')}-"

    def connect(self) -> None:
        """Start Ray, or join the cluster that the settings name. Blocks for some seconds."""
        address = self._settings.ray
        options = {"include_dashboard": False, "num_cpus": os.cpu_count()} if address == "local" else {}
        try:
            if ":" in address and "://" not in address:
                _reach(address)  # Ray itself would try for minutes.
            ray.init(address=address, namespace=_NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, **options)
        except (OSError, RayError, ValueError) as error:
            hint = "" if "RAY_AUTH_MODE" in os.environ else _AUTH_HINT
            raise SettingsError(f"cannot reach Ray at {address!r}: {error}{hint}") from error
        self._gcs = ray.get_runtime_context().gcs_address
        self.measure()

    @property
    def outlives_server(self) -> bool:
        """Whether Ray, and with it the workers, goes on when this server ends."""
        return self._settings.ray != "local"

    def disconnect(self) -> None:
        """Leave the cluster. Its workers stay for the next server; a Ray of this server's own ends with all of them."""
        ray.shutdown()

    async def find_running(self) -> dict[tuple[str, int], Worker]:
        """Take over the workers that an earlier server has left: return those that run an attempt, by job and attempt.

        Each of these is lent, as by `acquire`. Those that run nothing wait for work; those that do not answer, or are
        of another version, are ended.
        """
        found: dict[tuple[str, int], Worker] = {}
        for name in await asyncio.to_thread(ray.util.list_named_actors):
            if not name.startswith(self._store_prefix):
                continue
            actor = await asyncio.to_thread(ray.get_actor, name)
            try:
                if not name.startswith(self._name_prefix):
                    raise WorkerLostError("it is of another version")
                async with asyncio.timeout(_ANSWER_SECONDS):
                    running = await _call(actor.running.remote())
                    pool: Pool = "gpu" if name.endswith("-gpu") else "cpu"
                    worker = await self._introduce(name, pool, actor)
            except (WorkerLostError, TimeoutError) as error:
                _log.warning("worker %s, left by an earlier server, is ended: %s", name, error)
                await asyncio.to_thread(_end, name)
                continue
            self._names.add(name)
            self._workers[pool] += 1
            self._lent[pool] += 1
            if running is None or running in found:
                self.release(worker)
            else:
                found[running] = worker
        return found

    def forget(self) -> None:
        """Let go of all workers: another server schedules, and has them now, if they outlive this one's Ray."""
        for task in self._background:
            task.cancel()
        if not self.outlives_server:
            for name in self._names:
                self._run(asyncio.to_thread(_end, name))
        self._names.clear()
        for pool in self._idle:
            self._idle[pool] = asyncio.Queue()
            self._workers[pool] = self._lent[pool] = 0

    async def watch(self) -> NoReturn:
        """Keep an eye on the cluster's room until its head is lost, then ClusterLostError."""
        unanswered = 0
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    # Ray's own calls would wait for the head for a minute, and then end the process.
                    await asyncio.to_thread(_reach, self._gcs)
                    await asyncio.to_thread(self.measure)
                unanswered = 0
            except (OSError, TimeoutError, RayError) as error:
                unanswered += 1
                _log.warning("Ray's head at %s does not answer: %s", self._gcs, error or "it takes too long")
                if unanswered == _MOST_UNANSWERED:
                    raise ClusterLostError(f"Ray's head at {self._gcs} is lost") from error
            await asyncio.sleep(_LOOK_SECONDS)

    async def tend(self) -> NoReturn:
        """Tell idle workers that they are wanted, and end those that nobody follows: left by an earlier server.

        Only the server that schedules may do so.
        """
        while True:
            await asyncio.sleep(_FORSAKEN_SECONDS / 10)
            try:
                for name in await asyncio.to_thread(ray.util.list_named_actors):
                    if name in self._names:
                        await asyncio.to_thread(_call_on, name)
                    elif name.startswith(self._store_prefix):
                        _log.warning("worker %s belongs to no job and no server: it is ended", name)
                        await asyncio.to_thread(_end, name)
            except RayError as error:
                _log.warning("workers were not looked after: %s", error)

    async def last_words(self, worker: Worker) -> str:
        """Return the end of a dead worker's log, "" where its node is gone too."""
        node, path = worker.log
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                read = ray.remote(last_lines).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
                lines: str = await _call(read.remote(path))
        except (WorkerLostError, TimeoutError):
            return ""
        return lines

    def measure(self) -> None:
        """Look how much room the cluster has now."""
        resources = ray.cluster_resources()
        by_cpu = int(resources.get("CPU", 0) / self._settings.cpus_per_job)
        by_gpu = min(by_cpu, int(resources.get("GPU", 0) / self._settings.gpus_per_job))
        self._capacity = {"gpu": by_gpu, "cpu": by_cpu - by_gpu}

    @property
    def has_gpu(self) -> bool:
        """Whether a job can have a GPU."""
        return self._capacity["gpu"] > 0

    def pool_for(self, device: Device) -> Pool:
        """Return the pool that a job for this device waits for; "auto" is a GPU where there is one."""
        if device == Device.DEVICE_CPU or not self.has_gpu:
            return "cpu"
        return "gpu"

    def free(self, pool: Pool) -> int:
        """How many more jobs the pool can take now."""
        return max(0, self._capacity[pool] - self._lent[pool])

    async def warm_up(self) -> None:
        """Have one worker of each pool that there is room for ready before the first job comes."""
        pools: tuple[Pool, Pool] = ("cpu", "gpu")
        for pool in pools:
            if self.free(pool):
                self.release(await self.acquire(pool))

    async def acquire(self, pool: Pool) -> Worker:
        """Lend the first worker that is idle, warm or newly made. The caller must `release` or `discard` it."""
        self._lent[pool] += 1
        self._make_missing(pool)
        try:
            while True:
                worker = await self._idle[pool].get()
                if isinstance(worker, WorkerLostError):
                    raise worker
                try:
                    if await _answers(worker):
                        return worker
                except asyncio.CancelledError:
                    self._idle[pool].put_nowait(worker)
                    raise
                self._names.discard(worker.name)
                self._workers[pool] -= 1
                self._make_missing(pool)
        except BaseException:
            self._lent[pool] -= 1
            raise

    def release(self, worker: Worker) -> None:
        """Take a healthy worker back."""
        self._lent[worker.pool] -= 1
        self._idle[worker.pool].put_nowait(worker)

    def discard(self, worker: Worker) -> None:
        """End a worker that cannot be trusted any more."""
        self._run(asyncio.to_thread(_end, worker.name))
        self._names.discard(worker.name)
        self._lent[worker.pool] -= 1
        self._workers[worker.pool] -= 1
        self._make_missing(worker.pool)

    async def start(self, worker: Worker, assignment: Assignment, references: list[TensorRef]) -> None:
        """Begin an attempt on the worker."""
        tensors = None
        if not worker.reads_blobs:
            # Through Ray's object store, which moves each tensor once to a node and maps it there.
            arrays = await asyncio.to_thread(lambda: {ref.sha256: self._blobs.load(ref) for ref in references})
            tensors = ray.put(arrays)
        await _call(worker.actor.start.remote(assignment, tensors))

    async def poll(self, worker: Worker, job: str, attempt: int, after: int, timeout: float) -> list[Report]:
        """Return the attempt's reports after `after`, waiting up to `timeout` seconds for one."""
        return unpack(await _call(worker.actor.poll.remote(job, attempt, after, timeout)))

    async def stop(self, worker: Worker, job: str, attempt: int) -> None:
        """End an attempt that still runs."""
        async with asyncio.timeout(_STOP_SECONDS):
            await _call(worker.actor.stop.remote(job, attempt))

    def _make_missing(self, pool: Pool) -> None:
        """Begin to make workers for those who wait, as far as there is room."""
        while self._workers[pool] < min(self._lent[pool], self._capacity[pool]):
            self._workers[pool] += 1
            self._run(self._make(pool))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work be done, whoever waits for it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _make(self, pool: Pool) -> None:
        self._made += 1
        name = f"{self._name_prefix}{secrets.token_hex(4)}-{self._made}-{pool}"
        self._names.add(name)
        threads = str(max(1, int(self._settings.cpus_per_job)))
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        variables["GRADWIRE_PLAN"] = self._settings.plan
        variables["GRADWIRE_TF32"] = "1" if self._settings.tf32 else ""
        if pool == "cpu":
            variables["CUDA_VISIBLE_DEVICES"] = ""
        try:
            make = ray.remote(Trainer).options(
                name=name,
                lifetime="detached",
                num_cpus=self._settings.cpus_per_job,
                num_gpus=self._settings.gpus_per_job if pool == "gpu" else 0,
                max_concurrency=_CALLS_AT_ONCE,
                runtime_env={"env_vars": variables},
            )
            actor = await asyncio.to_thread(make.remote, _FORSAKEN_SECONDS)
            worker = await self._introduce(name, pool, actor)
        except (WorkerLostError, RayError) as error:
            self._names.discard(name)
            self._workers[pool] -= 1
            self._idle[pool].put_nowait(WorkerLostError(f"cannot start a worker: {error}"))
            return
        how = "" if worker.reads_blobs else ", data through Ray's object store"
        _log.info("worker %s is ready (%s%s)", name, pool, how)
        self._idle[pool].put_nowait(worker)

    async def _introduce(self, name: str, pool: Pool, actor: Any) -> Worker:
        """Ask a new worker what the server must know of it."""
        reads_blobs = await _call(actor.can_read.remote(self._blobs.url, self._blobs.probe))
        return Worker(name, pool, actor, reads_blobs, await _call(actor.own_log.remote()))


def _reach(address: str) -> None:
    """OSError unless something listens there."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _REACH_SECONDS).close()


def _end(name: str) -> None:
    with suppress(ValueError):  # It has ended by itself.
        ray.kill(ray.get_actor(name))


def _call_on(name: str) -> None:
    with suppress(ValueError):
        ray.get_actor(name).ping.remote()


async def _answers(worker: Worker) -> bool:
    """Whether an idle worker is still there."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await _call(worker.actor.ping.remote())
    except (WorkerLostError, TimeoutError):
        return False
    return True


async def _call(reference: Any) -> Any:
    try:
        return await reference
    except RayError as error:
        raise WorkerLostError(_first_line(error)) from error


def _first_line(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[0]}"
