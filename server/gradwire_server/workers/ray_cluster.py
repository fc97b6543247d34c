"""The Ray cluster. This module joins the cluster, measures its capacity, and detects when it is lost."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError

from gradwire_server.settings import GIB, Settings, SettingsError
from gradwire_server.workers.handle import DeviceKind

_log = logging.getLogger(__name__)

_NAMESPACE = "gradwire"
# The time that the head of a cluster has to accept a connection.
_CONNECT_SECONDS = 5
# The interval between checks of the cluster, the time that its head has to answer, and the number of checks that must
# fail in a row before it counts as lost.
_CHECK_SECONDS = 3.0
_ANSWER_SECONDS = 3.0
_MAX_FAILED_CHECKS = 3
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
# The memory that a worker needs before it has a job, in bytes.
_IDLE_WORKER_BYTES = 256 << 20
# A job can have this many bytes even on a node with little memory.
_MIN_JOB_BYTES = 512 << 20
# Ray sends its token only if it is configured to do so. If a cluster rejects the token, Ray does not state the reason.
_AUTH_HINT = ". If the cluster requires Ray's token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"


class ClusterLostError(RuntimeError):
    """The head of the cluster no longer answers. A process can join a cluster only once, so this process must end."""


class RayCluster:
    """The cluster that runs the workers. This server starts it, or joins an existing cluster."""

    def __init__(self, settings: Settings, folder: Path | None = None) -> None:
        """Prepare to start or to join a cluster.

        Args:
            settings: The settings of the server.
            folder: The folder for Ray's files, if this server starts Ray.
        """
        self._settings = settings
        self._folder = folder
        self._capacity: dict[DeviceKind, int] = {"cpu": 0, "gpu": 0}
        self._worker_memory = 0
        self._hosts: dict[str, str] = {}
        self._head = ""

    def connect(self) -> None:
        """Start Ray, or join the configured cluster. This method blocks for some seconds. Raises SettingsError."""
        address = self._settings.ray
        options = self._local_options() if address == "local" else {}
        try:
            if ":" in address and "://" not in address:
                _try_connect(address)  # Ray itself would try to connect for minutes.
            ray.init(address=address, namespace=_NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, **options)
        except Exception as error:  # Ray raises plain exceptions too, for example if its processes start too slowly.
            if address == "local":
                raise SettingsError(f"cannot start Ray on this machine: {error}") from error
            hint = "" if "RAY_AUTH_MODE" in os.environ else _AUTH_HINT
            raise SettingsError(f"cannot reach Ray at {address!r} (--ray, GRADWIRE_RAY): {error}{hint}") from error
        self._head = ray.get_runtime_context().gcs_address
        self.measure()

    def _local_options(self) -> dict[str, Any]:
        return {
            "include_dashboard": False,
            "num_cpus": os.cpu_count(),
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(self._folder) if self._folder else None,
        }

    def disconnect(self) -> None:
        """Leave the cluster. A local cluster ends with its workers. In another cluster, workers continue to run."""
        ray.shutdown()

    @property
    def outlives_server(self) -> bool:
        """Whether workers continue to run when this server ends."""
        return self._settings.ray != "local"

    @property
    def has_gpu(self) -> bool:
        """Whether the cluster has a GPU for jobs."""
        return self._capacity["gpu"] > 0

    def capacity(self, device: DeviceKind) -> int:
        """Return the number of workers of a kind that the cluster has room for."""
        return self._capacity[device]

    @property
    def worker_memory(self) -> int:
        """The memory of each worker, in bytes, or 0 if it is unknown."""
        return self._worker_memory

    @property
    def job_memory(self) -> int:
        """The additional memory that a job can use in a worker, in bytes, or 0 if it is unknown."""
        return max(_MIN_JOB_BYTES, self._worker_memory - _IDLE_WORKER_BYTES) if self._worker_memory else 0

    def host_of(self, node: str) -> str:
        """Return the host name of a node, given its ID, or an empty string if the node is not known yet."""
        return self._hosts.get(node, "")

    def measure(self) -> None:
        """Update the hosts, the capacity and the memory of a worker. This method blocks."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        self._hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in alive}
        nodes = [node["Resources"] for node in alive]
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        by_cpu = int(cpus / self._settings.cpus_per_job)
        by_memory, self._worker_memory = share_memory(nodes, self._settings)
        by_cpu = by_cpu if by_memory is None else min(by_cpu, by_memory)
        by_gpu = min(by_cpu, int(gpus / self._settings.gpus_per_job))
        self._capacity = {"gpu": by_gpu, "cpu": by_cpu - by_gpu}

    async def watch(self) -> NoReturn:
        """Update the capacity regularly. Raises ClusterLostError when the head no longer answers."""
        # No other work can delay the checks. A check that hangs occupies its thread.
        threads = ThreadPoolExecutor(_MAX_FAILED_CHECKS, thread_name_prefix="ray-check")
        try:
            await self._watch(threads)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self, threads: ThreadPoolExecutor) -> NoReturn:
        loop = asyncio.get_running_loop()
        failed = 0
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    # Ray's own calls would wait a minute for the head, and then end the process.
                    await loop.run_in_executor(threads, _try_connect, self._head)
                    await loop.run_in_executor(threads, self.measure)
                failed = 0
            except (OSError, TimeoutError, RayError) as error:
                if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
                    # This process has no file descriptors left, but the head may still work.
                    _log.warning("cannot check the head of Ray at %s: %s", self._head, error)
                else:
                    failed += 1
                    _log.warning("the head of Ray at %s does not answer: %s", self._head, error or "timeout")
                    if failed == _MAX_FAILED_CHECKS:
                        raise ClusterLostError(f"the head of Ray at {self._head} is lost") from error
            await asyncio.sleep(_CHECK_SECONDS)


def share_memory(nodes: Sequence[Mapping[str, float]], settings: Settings) -> tuple[int | None, int]:
    """Divide the memory of a cluster among workers.

    Args:
        nodes: The resources of each node: "CPU", and "memory" in bytes.
        settings: The number of processors and the amount of memory for each job.

    Returns:
        The number of workers that the memory is sufficient for, or None if it is divided by the number of workers that
        the processors allow; and the memory of each worker in bytes, or 0 if no node has both processors and memory.
    """
    fit = [
        (int(node["CPU"] / settings.cpus_per_job), node["memory"])
        for node in nodes
        if node.get("CPU", 0) >= settings.cpus_per_job and node.get("memory", 0)
    ]
    if not fit:
        return None, 0
    if not settings.memory_per_job:
        # All workers have the same memory, because a job can run on any node.
        return None, int(min(memory / workers for workers, memory in fit))
    wanted = int(settings.memory_per_job * GIB)
    return sum(min(workers, int(memory / wanted)) for workers, memory in fit), wanted


def _try_connect(address: str) -> None:
    """Raise OSError unless a process listens at the address."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
