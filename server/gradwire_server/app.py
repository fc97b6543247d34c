"""Wires the server together, runs it, and takes it down. Nothing else does."""

import asyncio
import fcntl
import logging
import os
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gradwire_proto.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from gradwire_proto.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from gradwire_proto.v1.model_service_pb2_grpc import add_ModelServiceServicer_to_server
from gradwire_proto.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from gradwire_server.api.authentication import Door
from gradwire_server.api.model_service import ModelService
from gradwire_server.api.tensor_service import DatasetService
from gradwire_server.api.training_service import TrainingService
from gradwire_server.jobs.admission import Validator
from gradwire_server.jobs.commands import Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.jobs.warm_start import Resumption
from gradwire_server.models.registry import Models
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.leader import Leader
from gradwire_server.scheduling.lease import Lease
from gradwire_server.settings import Settings, SettingsError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.storage.disk_space import Room
from gradwire_server.storage.garbage_collector import Collector
from gradwire_server.storage.uploads import Uploads
from gradwire_server.store import queries
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import StoreError
from gradwire_server.workers.ray_cluster import ClusterLostError, Runner

_log = logging.getLogger(__name__)

# A Predict of 32 MiB and its envelope.
_MOST_MESSAGE_BYTES = 40 << 20
_LEAST_PING_MS = 10_000
# How long calls that are under way may take when the server goes down.
_GRACE_SECONDS = 3.0
# What the process ends with when its Ray is lost; whatever supervises it then starts it again.
_EXIT_CLUSTER_LOST = 75

_SERVICES = [
    descriptor.full_name
    for file in (training_service_pb2, dataset_service_pb2, model_service_pb2)
    for descriptor in file.DESCRIPTOR.services_by_name.values()
]


def run(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` is called with the address once jobs are taken."""
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot use the data folder: {error}") from error
    with _only_server_of(settings.data):
        blobs = BlobStore(settings.blobs_url, settings.data / "scratch")
        runner = Runner(settings, blobs)
        # Ray before gRPC: it starts processes, which gRPC's threads do not like.
        runner.connect()
        try:
            with asyncio.Runner() as loop:
                try:
                    loop.run(_serve(settings, blobs, runner, on_ready))
                except ClusterLostError as error:
                    _log.error("%s: this server ends, to be started again; its jobs go on then", error)
                    logging.shutdown()
                    # Not by the way out for all else: calls to Ray hang, in threads that would be waited for.
                    os._exit(_EXIT_CLUSTER_LOST)
        finally:
            runner.disconnect()


async def _serve(settings: Settings, blobs: BlobStore, runner: Runner, on_ready: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopped.set)
    try:
        database = Database(settings.store or settings.data / "gradwire.db")
    except StoreError as error:
        raise SettingsError(str(error)) from error
    await _check_blob_store(database, blobs)
    changes = Changes()
    lease = Lease(database)
    jobs = Jobs(database, changes, lease)
    checkpoints = Checkpoints(blobs)
    room = Room(settings.data, blobs.staging)
    collector = Collector(database, blobs, checkpoints)
    leader = Leader(lease, jobs, runner, changes, collector, lambda: Attempts(jobs, runner, blobs, checkpoints, room))
    models = Models(database, blobs)

    server = grpc.aio.server(
        interceptors=[Door(settings.token)],
        options=[
            ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            # Watchers ping, so that they notice a connection that has silently died.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", _LEAST_PING_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    validator = Validator(database, blobs, runner, room)
    resumption = Resumption(jobs, models, checkpoints, blobs)
    add_TrainingServiceServicer_to_server(TrainingService(jobs, validator, resumption, checkpoints, changes), server)
    uploads = Uploads(blobs, blobs.staging / "uploads", room)
    add_DatasetServiceServicer_to_server(DatasetService(blobs, uploads), server)
    add_ModelServiceServicer_to_server(ModelService(models), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection([*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    address = _listen(server, settings)

    loop = asyncio.get_running_loop()
    database.news.listen(
        lambda change: loop.call_soon_threadsafe(changes.hear, change),
        missed=lambda: loop.call_soon_threadsafe(changes.look_at_all),
    )
    leading = asyncio.create_task(leader.run())
    lost = asyncio.create_task(runner.watch())
    await _first(leading, lost, leader.ready.wait())
    await server.start()
    for service in ["", *_SERVICES]:
        await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    on_ready(address)
    await _first(leading, lost, stopped.wait())

    _log.info("going down")
    await healthy.enter_graceful_shutdown()
    changes.close()
    await server.stop(_GRACE_SECONDS)
    for task in (leading, lost):
        task.cancel()
    outcomes = await asyncio.gather(leading, lost, return_exceptions=True)
    database.close()
    for failure in outcomes:
        if isinstance(failure, Exception):
            raise failure


async def _check_blob_store(database: Database, blobs: BlobStore) -> None:
    """SettingsError unless the blobs are those that the database's jobs speak of."""
    mark, may_be_new = await database.write(
        lambda connection: queries.blob_store_mark(connection, secrets.token_hex(8))
    )
    if blobs.mark is None and may_be_new:
        blobs.set_mark(mark)
    if blobs.mark != mark:
        raise SettingsError(
            f"the jobs of this database have their data in another blob store than {blobs.url}: "
            "give the --blobs (GRADWIRE_BLOBS) that they were stored with; all servers on a database share one"
        )


async def _first(leading: asyncio.Task[None], lost: asyncio.Task[NoReturn], event: Awaitable[object]) -> None:
    """Wait for the event, or for one of the tasks to fail."""
    await asyncio.wait((leading, lost, asyncio.ensure_future(event)), return_when=asyncio.FIRST_COMPLETED)


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
        message = f"cannot listen on {where}: is another server there? Choose another --port (0: any free one)"
        raise SettingsError(message) from error
    return f"{host}:{port}"


@contextmanager
def _only_server_of(data: Path) -> Iterator[None]:
    """Hold the data folder's lock; a second server on it refuses to start and says who holds it."""
    try:
        lock = (data / "lock").open("a+")
    except OSError as error:
        owner = data.stat().st_uid
        raise SettingsError(
            f"cannot write to the data folder {data}, which belongs to user {owner}, as user {os.getuid()}: {error}"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise SettingsError(f"the data folder {data} is in use by another server, process {holder}") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
