"""A whole server in this process, on a real socket. Its workers are trainers in this process instead of Ray actors."""

import asyncio
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_server import app
from gradwire_server.settings import Settings
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.store.database import Database
from gradwire_server.workers.handle import WorkerLostError
from gradwire_server.workers.pool import IdleWorker
from gradwire_server.workers.ray_cluster import RayCluster
from gradwire_worker.messages import Assignment, Report, unpack
from gradwire_worker.trainer import Trainer

# The time limit for a worker to stop, in seconds, as in gradwire_server.workers.handle.
_STOP_SECONDS = 10
# A poll waits this long in a thread. The event loop waits for its threads when it ends.
_POLL_SECONDS = 0.05


class LocalWorker:
    """A trainer in this process, with the methods of a worker handle.

    Attributes:
        assignments: The assignments that the worker received.
        reports: The reports that its polls returned, keyed by attempt.
        last_checkpoint: If set, the worker dies after it reports the first checkpoint of this epoch or a later epoch.
        last_epoch: If set, the worker dies after it reports this epoch.
    """

    device = "cpu"

    def __init__(self, name: str) -> None:
        self.name = name
        self.assignments: list[Assignment] = []
        self.reports: dict[int, list[Report]] = {}
        self.last_checkpoint: int | None = None
        self.last_epoch: int | None = None
        self._trainer: Trainer | None = None
        self._lost = False

    async def start(self, assignment: Assignment, _references: object, _blobs: object, timeout: float) -> list[Report]:
        """Start an attempt, and return its first reports."""
        self.assignments.append(assignment)
        if self._trainer is None:
            self._trainer = await asyncio.to_thread(Trainer)
        await self._call("start", assignment)
        return await self.poll(assignment.job, assignment.attempt, 0, timeout)

    async def poll(self, job_name: str, attempt: int, after: int, timeout: float) -> list[Report]:
        """Return the reports of an attempt after a sequence number."""
        deadline = time.monotonic() + timeout
        reports: list[Report] = []
        while not reports and time.monotonic() < deadline:
            reports = unpack(await self._call("poll", job_name, attempt, after, _POLL_SECONDS))
        for place, report in enumerate(reports, 1):
            if self._dies_after(report.to_event()):
                self.kill()
                del reports[place:]
                break
        self.reports.setdefault(attempt, []).extend(reports)
        return reports

    async def stop(self, job_name: str, attempt: int) -> None:
        """Stop an attempt."""
        async with asyncio.timeout(_STOP_SECONDS):
            await self._call("stop", job_name, attempt)

    async def finish(self, job_name: str, attempt: int) -> None:
        """Make an attempt end its job after the current epoch."""
        await self._call("finish", job_name, attempt)

    async def log_tail(self) -> str:
        """Return the end of its log."""
        return ""

    def kill(self) -> None:
        """Behave as if the worker's process had died."""
        self._lost = True
        if self._trainer is not None and self._trainer._run is not None:
            self._trainer._run.stop()

    def _dies_after(self, event: Event) -> bool:
        if self.last_epoch is not None and event.epoch.epoch == self.last_epoch:
            return True
        return self.last_checkpoint is not None and event.checkpoint.epoch >= self.last_checkpoint

    @property
    def is_training(self) -> bool:
        """Whether an attempt is running."""
        run = self._trainer and self._trainer._run
        return run is not None and run.is_alive()

    async def _call(self, method: str, *arguments: object) -> Any:
        if self._lost:
            raise WorkerLostError("killed")
        return await asyncio.to_thread(getattr(self._trainer, method), *arguments)


class LocalPool:
    """A pool of one worker. If the worker is discarded, another one replaces it."""

    def __init__(self) -> None:
        self.worker = LocalWorker("worker-1")
        self.discarded: list[LocalWorker] = []
        self.is_kept_alive = asyncio.Event()
        self.is_forgotten = False
        self._is_free = asyncio.Event()
        self._is_free.set()

    def device_for(self, _device: object) -> str:
        """Return the kind of worker for a job."""
        return "cpu"

    def free(self, device: str) -> int:
        """Return the number of additional workers that can be lent."""
        return int(device == "cpu" and self._is_free.is_set())

    def capacity(self, device: str) -> int:
        """Return the number of workers."""
        return int(device == "cpu")

    def startable(self) -> int:
        """Return 0, because the worker always exists."""
        return 0

    def idle(self) -> list[IdleWorker]:
        """Return the worker, unless it is lent."""
        return [IdleWorker("cpu", platform.node())] * self.free("cpu")

    async def warm_up(self) -> None:
        """Do nothing, because the worker is always warm."""

    async def adopt_workers(self) -> dict[tuple[str, int], LocalWorker]:
        """Return an empty dict, because there are no earlier servers."""
        return {}

    async def acquire(self, _device: str) -> LocalWorker:
        """Lend the worker."""
        await self._is_free.wait()
        self._is_free.clear()
        return self.worker

    def release(self, _worker: LocalWorker) -> None:
        """Take the worker back."""
        self._is_free.set()

    def discard(self, worker: LocalWorker) -> None:
        """Replace the worker."""
        worker.kill()
        self.discarded.append(worker)
        self.worker = LocalWorker(f"worker-{len(self.discarded) + 1}")
        self._is_free.set()

    def forget(self) -> None:
        """Give up the worker."""
        self.is_forgotten = True
        self.worker.kill()

    async def keep_alive(self) -> NoReturn:
        """Record the call."""
        self.is_kept_alive.set()
        raise await asyncio.Future()


class _NoCluster(RayCluster):
    outlives_server = False

    async def watch(self) -> NoReturn:
        raise await asyncio.Future()


@dataclass(frozen=True)
class Running:
    """A running server, its worker pool and its blobs. Set `stopped` to shut it down, and wait for `ended`."""

    server: app.Server
    pool: LocalPool
    blobs: BlobStore
    stopped: asyncio.Event
    ended: "asyncio.Task[None]"

    @property
    def address(self) -> str:
        """Its "host:port"."""
        return self.server.address


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Running]:
    """Run a server within the context. `settings` are arguments of Settings, except the port and the data folder."""
    chosen = Settings(data=folder, port=0, **settings)
    blobs = BlobStore(chosen.blobs_url, folder / "scratch")
    pool = LocalPool()
    with mock.patch.object(app, "WorkerPool", return_value=pool):
        server = app.build_server(chosen, Database(folder / "gradwire.db"), blobs, _NoCluster(chosen))
    stopped, ready = asyncio.Event(), asyncio.Event()
    ended = asyncio.create_task(app.run_server(server, stopped, lambda *_addresses: ready.set()))
    starting = asyncio.create_task(ready.wait())
    await asyncio.wait((ended, starting), return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        await ended
    try:
        yield Running(server, pool, blobs, stopped, ended)
    finally:
        stopped.set()
        await ended
