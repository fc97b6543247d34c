"""Creates the components of the server, runs the server, and shuts it down."""

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gradwire_proto.v1 import model_service_pb2, tensor_service_pb2, training_service_pb2
from gradwire_proto.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from gradwire_proto.v1.tensor_service_pb2_grpc import add_TensorServiceServicer_to_server
from gradwire_proto.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from gradwire_server.api.authentication import Authenticator
from gradwire_server.api.call_end import remember_calls
from gradwire_server.api.interceptor import CallInterceptor
from gradwire_server.api.model_service import ModelService
from gradwire_server.api.reflection import add_reflection_to_server
from gradwire_server.api.tensor_service import TensorService
from gradwire_server.api.training_service import TrainingService
from gradwire_server.data_folder import lock_data_folder
from gradwire_server.file_descriptors import max_connections, raise_limit
from gradwire_server.jobs.admission import Admission
from gradwire_server.jobs.attempt_records import AttemptRecords
from gradwire_server.jobs.commands import JobCommands
from gradwire_server.jobs.event_log import EventLog
from gradwire_server.jobs.job_size import SizeLimits
from gradwire_server.jobs.live import LiveJobs
from gradwire_server.jobs.model_cards import ModelCards
from gradwire_server.jobs.notifier import JobNotifier
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.jobs.unfinished_models import UnfinishedModels
from gradwire_server.jobs.warm_start import WarmStart
from gradwire_server.limits import (
    MAX_CALLS_PER_CONNECTION,
    MAX_HANDSHAKE_SECONDS,
    MAX_HTTP_CONNECTIONS,
    MAX_IDLE_CONNECTION_SECONDS,
    MAX_MESSAGE_BYTES,
)
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.leader import Leader
from gradwire_server.scheduling.lease import Lease
from gradwire_server.scheduling.overview import ClusterOverview
from gradwire_server.settings import GIB, Settings, SettingsError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.storage.garbage_collector import GarbageCollector
from gradwire_server.storage.tensor_quota import TensorQuota
from gradwire_server.storage.tensors import Tensors
from gradwire_server.storage.uploads import Uploads
from gradwire_server.store import tensor_queries
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import StoreError
from gradwire_server.threads import close_threads
from gradwire_server.workers.local_ray import local_ray
from gradwire_server.workers.pool import WorkerPool
from gradwire_server.workers.ray_cluster import ClusterLostError, RayCluster
from gradwire_worker.blob_urls import without_credentials

if TYPE_CHECKING:
    from gradwire_server.http.gateway import HttpGateway

_log = logging.getLogger(__name__)

# Receives the address of the gRPC server and the URL of the web page, or None without HTTP.
OnReady = Callable[[str, str | None], None]

_MIN_PING_INTERVAL_MS = 10_000
# The set of gRPC's compression algorithms that contains only the identity.
_NO_COMPRESSION = 1
# The time that the server has, when it shuts down, to notify the clients that watch its health.
_HEALTH_SECONDS = 1.0
# The time that calls have to finish after the server starts to shut down.
_GRACE_SECONDS = 3.0
# The exit code when Ray is lost. A supervisor then restarts the server.
_EXIT_CLUSTER_LOST = 75

_SERVICES = [
    descriptor.full_name
    for file in (training_service_pb2, tensor_service_pb2, model_service_pb2)
    for descriptor in file.DESCRIPTOR.services_by_name.values()
]


@dataclass(frozen=True)
class Server:
    """The components of a server that are started and stopped."""

    database: Database
    cluster: RayCluster
    notifier: JobNotifier
    leader: Leader
    grpc_server: grpc.aio.Server
    health: health.aio.HealthServicer
    address: str
    http: "HttpGateway | None"


def run(settings: Settings, on_connecting: Callable[[], None], on_ready: OnReady) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: The settings of the server.
        on_connecting: A function that is called before the server starts or joins Ray, which takes seconds.
        on_ready: A function that is called with the addresses as soon as the server accepts jobs.

    Raises:
        SettingsError: The server cannot start with these settings.
    """
    # Raise it before Ray starts, because Ray's processes inherit the limit.
    raise_limit()
    with lock_data_folder(settings.data), _ray_folder(settings) as ray_folder:
        check_address(settings)
        on_connecting()
        blobs = BlobStore(settings.blobs_url, settings.data / "scratch")
        cluster = RayCluster(settings, ray_folder)
        # Connect before gRPC starts. Ray starts processes, and forking is not safe while gRPC threads run.
        cluster.connect()
        try:
            with asyncio.Runner() as runner:
                try:
                    runner.run(_build_and_run(settings, blobs, cluster, on_ready))
                except ClusterLostError as error:
                    _log.error("%s. This server exits, and must be started again to continue its jobs", error)
                    logging.shutdown()
                    # An orderly exit is not possible, because threads wait for calls to Ray that never return.
                    os._exit(_EXIT_CLUSTER_LOST)
        finally:
            cluster.disconnect()


def _ray_folder(settings: Settings) -> AbstractContextManager[Path | None]:
    """Yield the folder for the files of Ray, or None if an existing cluster is joined."""
    return local_ray(settings.data) if settings.ray == "local" else nullcontext()


async def _build_and_run(settings: Settings, blobs: BlobStore, cluster: RayCluster, on_ready: OnReady) -> None:
    stopped = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
    try:
        database = Database(settings.store or settings.data / "gradwire.db")
    except StoreError as error:
        raise SettingsError(str(error)) from error
    await _check_blob_store(database, blobs)
    await run_server(build_server(settings, database, blobs, cluster), stopped, on_ready)


def build_server(settings: Settings, database: Database, blobs: BlobStore, cluster: RayCluster) -> Server:
    """Create the components of a server and listen on its address. Raises SettingsError if the address is in use."""
    disk_space = DiskSpace(settings.data, blobs.staging)
    checkpoints = CheckpointStore(blobs)
    notifier = JobNotifier(database.notifications)
    log = EventLog(database, notifier)
    queries = JobQueries(database, notifier)
    models = ModelRegistry(database, blobs, checkpoints)
    warm_start = WarmStart(queries, models, checkpoints)
    admission = Admission(
        database,
        blobs,
        disk_space,
        warm_start,
        cluster_has_gpu=lambda: cluster.has_gpu,
        limits=SizeLimits(int(settings.max_log * GIB), threads=max(1, int(settings.cpus_per_job))),
        worker_memory=lambda: cluster.job_memory,
    )

    lease = Lease(database)
    records = AttemptRecords(log, lease.check)
    pool = WorkerPool(settings, cluster, blobs)
    leader = Leader(
        lease=lease,
        records=records,
        pool=pool,
        notifier=notifier,
        garbage_collector=GarbageCollector(database, blobs, checkpoints, disk_space),
        leave_workers=cluster.outlives_server,
        new_attempts=lambda: Attempts(records, pool, blobs, checkpoints, disk_space),
    )

    grpc_server = _new_grpc_server(settings, max_connections() - _http_connections(settings))
    unfinished = UnfinishedModels(queries, models, checkpoints)
    training = TrainingService(
        JobCommands(log, queries),
        queries,
        LiveJobs(database, notifier),
        admission,
        checkpoints,
        unfinished,
        workers=ClusterOverview(database, leader, pool).get,
    )
    add_TrainingServiceServicer_to_server(training, grpc_server)
    quota = TensorQuota(blobs, int(settings.max_tensors * GIB))
    uploads = Uploads(blobs, blobs.staging / "uploads", disk_space)
    add_TensorServiceServicer_to_server(TensorService(blobs, uploads, Tensors(database, blobs), quota), grpc_server)
    add_ModelServiceServicer_to_server(ModelService(models, ModelCards(queries, models)), grpc_server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, grpc_server)
    add_reflection_to_server([*_SERVICES, health.SERVICE_NAME], grpc_server)
    address = _listen(grpc_server, settings)
    http = _http_gateway(grpc_server, settings, address)
    return Server(database, cluster, notifier, leader, grpc_server, health_servicer, address, http)


async def run_server(server: Server, stopped: asyncio.Event, on_ready: OnReady) -> None:
    """Run a server until `stopped` is set, and then shut it down.

    Raises:
        ClusterLostError: The Ray head no longer answers.
    """
    server.notifier.listen()
    leading = asyncio.create_task(server.leader.run())
    watching = asyncio.create_task(server.cluster.watch())
    await _first(leading, watching, server.leader.ready.wait())
    await server.grpc_server.start()
    for service in ["", *_SERVICES]:
        await server.health.set(service, health_pb2.HealthCheckResponse.SERVING)
    if server.http is not None:
        server.http.start()
    on_ready(server.address, None if server.http is None else server.http.url)
    await _first(leading, watching, stopped.wait())

    if stopped.is_set():
        await server.leader.lease.mark_orderly()
    _log.info("shutting down")
    # A client that watches the health but reads nothing must not delay the shutdown.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.health.enter_graceful_shutdown(), _HEALTH_SECONDS)
    server.notifier.close()
    if server.http is not None:
        await server.http.stop()
    await server.grpc_server.stop(_GRACE_SECONDS)
    for task in (leading, watching):
        task.cancel()
    outcomes = await asyncio.gather(leading, watching, return_exceptions=True)
    close_threads()
    server.database.close()
    for failure in outcomes:
        if isinstance(failure, Exception):
            raise failure


async def _check_blob_store(database: Database, blobs: BlobStore) -> None:
    """Raise SettingsError unless the blob store belongs to the database."""
    mark, may_be_new = await database.write(
        lambda connection: tensor_queries.blob_store_mark(connection, secrets.token_hex(8))
    )
    if blobs.mark is None and may_be_new:
        blobs.set_mark(mark)
    if blobs.mark != mark:
        raise SettingsError(
            f"the blob store {without_credentials(blobs.url)} does not belong to this database. Use the --blobs "
            "(GRADWIRE_BLOBS) that its jobs were stored with. All servers on a database share one blob store"
        )


async def _first(leading: asyncio.Task[None], watching: asyncio.Task[NoReturn], event: Awaitable[object]) -> None:
    """Wait until the event is set or one of the tasks fails."""
    await asyncio.wait((leading, watching, asyncio.ensure_future(event)), return_when=asyncio.FIRST_COMPLETED)


def _new_grpc_server(settings: Settings, max_connections: int) -> grpc.aio.Server:
    remember_calls()
    return grpc.aio.server(
        interceptors=[CallInterceptor(Authenticator(settings.token))],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # A small compressed request can become a large message, and gRPC would decompress it on receipt.
            ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
            ("grpc.so_reuseport", 0),
            # Connections beyond this number are closed as soon as they are accepted. Each listener counts its own
            # connections.
            ("grpc.max_allowed_incoming_connections", max_connections // (2 if settings.socket else 1)),
            ("grpc.max_concurrent_streams", MAX_CALLS_PER_CONNECTION),
            ("grpc.server_handshake_timeout_ms", MAX_HANDSHAKE_SECONDS * 1000),
            ("grpc.max_connection_idle_ms", MAX_IDLE_CONNECTION_SECONDS * 1000),
            # Watchers send pings, so that they notice silently lost connections.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )


def check_address(settings: Settings) -> None:
    """Check the address before Ray starts. Raises SettingsError if the server cannot listen on it."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: there is no host {settings.host!r}. Choose another "
            "--host (GRADWIRE_HOST), for example 127.0.0.1"
        ) from None
    failures = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            failures.append(error)
    if len(failures) < len(found):  # Like gRPC, this check needs only one of the host's addresses.
        return
    if any(failure.errno == errno.EADDRINUSE for failure in failures):
        raise SettingsError(_in_use(f"{settings.host}:{settings.port}"))
    raise SettingsError(
        f"cannot listen on {settings.host}:{settings.port}: {failures[0].strerror}. Choose another --host or --port"
    )


def _in_use(where: str) -> str:
    return f"cannot listen on {where}. Is another server running there? Choose another --port (0: any free port)"


def _listen(server: grpc.aio.Server, settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        if settings.key_and_chain is None:
            port = server.add_insecure_port(f"{host}:{settings.port}")
        else:
            credentials = grpc.ssl_server_credentials([settings.key_and_chain])
            port = server.add_secure_port(f"{host}:{settings.port}", credentials)
        if settings.socket:
            server.add_insecure_port(f"unix:{settings.socket}")
    except RuntimeError as error:
        where = f"{host}:{settings.port}" + (f" and {settings.socket}" if settings.socket else "")
        raise SettingsError(_in_use(where)) from error
    return f"{host}:{port}"


def _http_gateway(server: grpc.aio.Server, settings: Settings, address: str) -> "HttpGateway | None":
    """Return the gateway that calls the server through a socket of its own, or None if there is no HTTP port."""
    if settings.http_port == 0:
        return None
    from gradwire_server.http.gateway import HttpGateway  # noqa: PLC0415  (slow to import, and not always needed)

    gateway = HttpGateway(settings, address, [*_SERVICES, health.SERVICE_NAME], _http_connections(settings))
    server.add_insecure_port(f"unix:{gateway.socket}")
    return gateway


def _http_connections(settings: Settings) -> int:
    """Return how many of the connections are for HTTP."""
    return 0 if settings.http_port == 0 else min(max_connections() // 4, MAX_HTTP_CONNECTIONS)
