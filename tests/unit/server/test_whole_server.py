"""A whole server on a real socket, with a worker in this process: behavior that involves all parts."""

import asyncio
import os
import threading
import time
import tracemalloc

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from server_parts import open_jobs
from server_without_ray import serving
from sqlalchemy import select

import gradwire as gw
from gradwire_engine.plans import ReferencePlan
from gradwire_proto.v1 import model_service_pb2, tensor_service_pb2, training_service_pb2
from gradwire_proto.v1.errors_pb2 import JobWarningReason
from gradwire_proto.v1.training_service_pb2 import WatchJobRequest
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub
from gradwire_server import app
from gradwire_server.data_folder import lock_data_folder
from gradwire_server.jobs.events import warning
from gradwire_server.scheduling import loop
from gradwire_server.scheduling.lease import Lease
from gradwire_server.settings import SettingsError
from gradwire_server.storage import garbage_collector
from gradwire_server.storage.blob_store import RETENTION_SECONDS, BlobStore
from gradwire_server.store.tables import lease

METHODS = [
    method
    for file in (training_service_pb2, tensor_service_pb2, model_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
# The services that need no token.
PUBLIC = ("/grpc.health.v1.Health/", "/grpc.reflection.v1.", "/grpc.reflection.v1alpha.")
# A field with the number 100 and the value 1, as a newer client might send it.
FROM_THE_FUTURE = b"\xa0\x06\x01"
SECONDS = 30


@pytest.fixture(autouse=True)
def _reference_plan(monkeypatch):
    """The reference plan needs no compiler, so that a worker starts immediately."""
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")


def run(scenario):
    """Run a scenario, and fail if it hangs."""
    asyncio.run(asyncio.wait_for(scenario, 2 * SECONDS))


async def error_of(channel, method, request=b"", token=None):
    """Call a method with a serialized request. Return the error, or None if the call succeeds."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = [("authorization", f"Bearer {token}")] if token else []
    call = getattr(channel, kind)(path)(iter([request]) if method.client_streaming else request, metadata=metadata)
    try:
        if not method.server_streaming:
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        return error
    return None


def test_every_call_without_the_right_token_is_refused(tmp_path, monkeypatch):
    paths = []
    server_class = grpc.aio._server.Server
    register = server_class.add_generic_rpc_handlers

    def noted(server, handlers):
        paths.extend(path for handler in handlers for path in handler._method_handlers)
        register(server, handlers)

    monkeypatch.setattr(server_class, "add_generic_rpc_handlers", noted)

    async def scenario():
        async with serving(tmp_path, token="secret") as running, grpc.aio.insecure_channel(running.address) as channel:
            own = {path for path in paths if not path.startswith(PUBLIC)}
            assert own == {f"/{method.containing_service.full_name}/{method.name}" for method in METHODS}
            for method in METHODS:
                for token in (None, "wrong", "secretsecret", "secre"):
                    refused = await error_of(channel, method, token=token)
                    assert refused is not None, method.full_name
                    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, method.full_name
                accepted = await error_of(channel, method, token="secret")
                assert accepted is None or accepted.code() is not grpc.StatusCode.UNAUTHENTICATED, method.full_name

    run(scenario())


def test_every_call_refuses_a_field_that_it_does_not_know(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            for method in METHODS:
                refused = await error_of(channel, method, FROM_THE_FUTURE)
                assert refused is not None, method.full_name
                details = dict(refused.trailing_metadata())["grpc-status-details-bin"]
                bad_request = BadRequest()
                assert any(detail.Unpack(bad_request) for detail in Status.FromString(details).details)
                assert "has field number 100" in bad_request.field_violations[0].description, method.full_name

    run(scenario())


def test_a_server_that_shuts_down_reports_not_serving(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "gradwire.v1.TrainingService"):
                request = health_pb2.HealthCheckRequest(service=service)
                assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            running.stopped.set()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()

    run(scenario())


def test_a_server_that_shuts_down_gives_up_its_workers_and_releases_the_lease(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running:
            expires = await running.server.database.read(lambda connection: connection.scalar(select(lease.c.expires)))
            assert expires > time.time()
            released = asyncio.Event()
            close = running.server.database.close

            def close_after_release():
                with running.server.database._engine.connect() as connection:
                    assert connection.scalar(select(lease.c.expires)) == 0
                released.set()
                close()

            running.server.database.close = close_after_release
            running.stopped.set()
            await running.ended
            assert released.is_set()
            assert running.pool.is_forgotten

    run(scenario())


def test_the_server_that_schedules_collects_garbage_and_keeps_its_workers_alive(tmp_path, monkeypatch):
    async def scenario():
        monkeypatch.setattr(garbage_collector, "_INTERVAL_SECONDS", 0.01)
        async with serving(tmp_path) as running:
            await running.pool.is_kept_alive.wait()
            forgotten = running.blobs.staging / "interrupted.part"
            forgotten.write_bytes(b"half")
            os.utime(forgotten, (0, time.time() - RETENTION_SECONDS - 10))
            while forgotten.exists():
                await asyncio.sleep(0.001)

    run(scenario())


def test_a_watch_of_a_server_that_shuts_down_ends_with_a_retry_delay(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            running.pool.free = lambda _device: 0
            async with gw.AsyncClient(running.address) as client:
                await submit(client, "a")
            watch = TrainingServiceStub(channel).WatchJob(WatchJobRequest(name="jobs/a"))
            await watch.read()
            running.stopped.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
            assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in Status.FromString(details).details)

    run(scenario())


def test_the_blob_store_must_belong_to_the_database(database, tmp_path):
    async def scenario():
        names = ("own", "new", "other")
        own, new, other = (BlobStore((tmp_path / name).as_uri(), tmp_path / "scratch") for name in names)
        other.set_mark("the mark of another database")
        await app._check_blob_store(database, own)
        await app._check_blob_store(database, own)
        await open_jobs(database, Lease(database)).create("a")
        for blobs in (new, other):
            with pytest.raises(SettingsError, match=f"{blobs.url} does not belong to this database"):
                await app._check_blob_store(database, blobs)
        await app._check_blob_store(database, own)

    run(scenario())


def test_one_server_at_a_time_uses_a_data_folder(tmp_path):
    with (
        lock_data_folder(tmp_path / "data"),
        pytest.raises(SettingsError, match=f"process {os.getpid()}. Choose"),
        lock_data_folder(tmp_path / "data"),
    ):
        pass
    with lock_data_folder(tmp_path / "data"):
        pass


X = np.random.default_rng(0).random((200, 4)).astype(np.float32)
Y = np.arange(200) % 3


async def submit(client, name, epochs=60, data=(X, Y), **changes):
    gw.seed(0)
    model = gw.Sequential(gw.Linear(data[0].shape[1], 8), gw.ReLU(), gw.Linear(8, 3))
    arguments = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=0.1), "epochs": epochs, "batch_size": 10}
    return await client.jobs.submit(model, data, **(arguments | changes), name=name)


async def digest(client, name):
    return (await client.models.get(name)).weights_sha256


@pytest.fixture
def checkpoints_after_every_epoch(monkeypatch):
    for name in ("_MIN_INTERVAL_SECONDS", "_MAX_INTERVAL_SECONDS"):
        monkeypatch.setattr(f"gradwire_worker.checkpoint_policy.{name}", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # Three syncs for each checkpoint would take too long.


@pytest.mark.usefixtures("checkpoints_after_every_epoch")
def test_a_job_whose_worker_dies_continues_after_its_last_checkpoint(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            await (await submit(client, "undisturbed")).result()
            first = running.pool.worker
            first.last_checkpoint = 10
            job = await submit(client, "disturbed")
            assert [epoch.epoch async for epoch in job.epochs()] == list(range(1, 61))
            second = running.pool.worker
            resume = second.assignments[0].resume
            reported = [report.to_event() for report in second.reports[2]]
            assert second is not first
            assert 10 <= resume.epoch == first.reports[1][-1].to_event().checkpoint.epoch < 60
            computed = [event.epoch.epoch for event in reported if event.HasField("epoch")]
            assert computed == list(range(resume.epoch + 1, 61)), "the first is the one after the checkpoint"
            assert await digest(client, "disturbed") == await digest(client, "undisturbed")

    run(scenario())


@pytest.mark.usefixtures("checkpoints_after_every_epoch")
def test_the_checkpoints_of_a_job_are_kept_until_it_succeeds_or_is_deleted(tmp_path):
    folder = tmp_path / "blobs" / "checkpoints"

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            cancelled = await submit(client, "cancelled", epochs=10**6)
            async for event in cancelled.events():
                if event.kind == "checkpoint":
                    break
            await cancelled.cancel()
            succeeded = await submit(client, "succeeded", epochs=5)
            await succeeded.result()
            assert [path.name for path in folder.iterdir()] == ["1"], "the job that succeeded has none"
            assert 1 <= len(list((folder / "1").iterdir())) <= 2
            await cancelled.delete()
            assert list(folder.iterdir()) == []

    run(scenario())


class NotingCalls:
    """A file system that notes which of its methods are looked up on an event loop or in a transaction."""

    def __init__(self, fs):
        self._fs = fs
        self.on_event_loop, self.in_transactions = [], []

    def __getattr__(self, name):
        if asyncio._get_running_loop() is not None:
            self.on_event_loop.append(name)
        if threading.current_thread().name == "store-write":
            self.in_transactions.append(name)
        return getattr(self._fs, name)


@pytest.mark.usefixtures("checkpoints_after_every_epoch")
def test_neither_the_event_loop_nor_a_transaction_waits_for_an_object_store(tmp_path):
    async def scenario():
        options = {"blobs": f"memory://{tmp_path.name}", "max_tensors": 1}
        async with serving(tmp_path, **options) as running, gw.AsyncClient(running.address) as client:
            noted = running.blobs.fs = NotingCalls(running.blobs.fs)
            await (await submit(client, "first", epochs=3, keep="every:1")).result()
            new = ["inputs", "targets", "initial weights"]
            assert noted.in_transactions == ["exists" for _tensor in new], "when its summary is stored"
            cancelled = await submit(client, "cancelled", epochs=10**6)
            await anext(cancelled.epochs())
            await cancelled.cancel()
            assert len(noted.in_transactions) == len(new), "the tensors are known"
            await (await submit(client, "continued", epochs=5, resume_from="first")).result()
            new.append("weights of the first job")
            for epoch in (None, 1):
                await client.models.predict("first", X, epoch=epoch)
                await client.models.download("first", tmp_path / f"{epoch}.safetensors", epoch=epoch)
            for job in ("first", "cancelled", "continued"):
                await client.jobs.delete(job)
            await running.server.leader.garbage_collector.collect()
            assert noted.in_transactions == ["exists" for _tensor in new]
            noted.in_transactions.clear()
            for model in ("first", "continued"):
                await client.models.delete(model)
            for tensor in await client.tensors.list():
                await client.tensors.delete(tensor)
            assert {*noted.in_transactions} == {"rm_file"}
            assert noted.on_event_loop == []

    run(scenario())


# One epoch of this job takes minutes.
ENDLESS = {"data": (np.zeros((1_000_000, 1), np.float32), np.zeros(1_000_000, int)), "epochs": 1, "batch_size": 1}


@pytest.mark.parametrize("command", ["cancel", "pause"])
def test_a_worker_stops_in_the_middle_of_an_epoch_and_runs_the_next_job(tmp_path, monkeypatch, command):
    slices = 0
    train = ReferencePlan.train

    def noted(*arguments):
        nonlocal slices
        slices += 1
        return train(*arguments)

    monkeypatch.setattr(ReferencePlan, "train", noted)

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            job = await submit(client, "endless", **ENDLESS)
            async for event in job.events():
                if event.state == "RUNNING":
                    break
            worker = running.pool.worker
            while slices < 3:
                await asyncio.sleep(0.001)
            assert worker.is_training
            await getattr(job, command)()
            # An attempt that missed the request would notice it only at the end of its poll, after 20 s.
            async with asyncio.timeout(SECONDS / 2):
                await (await submit(client, "next", epochs=1)).result()
            assert running.pool.worker is worker, "it stopped by itself and was not killed"
            assert running.pool.discarded == []
            epochs = [report for report in worker.reports[1] if report.to_event().HasField("epoch")]
            assert len(epochs) == 1, "that of the next job"

    run(scenario())


def test_a_watcher_that_stops_reading_uses_no_memory_and_does_not_delay_others(tmp_path, monkeypatch):
    """Each event has 10 kB, and the watcher leaves 20 MB of events unread."""
    text = 10_000 * "x"
    # The scheduler would put the job, which no worker runs, back into the queue.
    monkeypatch.setattr(loop, "_INTERVAL_SECONDS", 3600)

    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            # The test itself is the worker of the job.
            running.pool.free = lambda _device: 0
            async with gw.AsyncClient(running.address) as client:
                await submit(client, "a")
            records, training = running.server.leader.records, TrainingServiceStub(channel)
            await records.start_attempt(1)
            slow = training.WatchJob(WatchJobRequest(name="jobs/a"))
            await slow.read()
            tracemalloc.start()
            other = training.WatchJob(WatchJobRequest(name="jobs/a"))
            received = len((await other.read()).events)
            for number in range(20):
                events = [warning(JobWarningReason.JOB_WARNING_REASON_DISK_FULL, text) for _ in range(100)]
                await records.record_reports(1, 1, events, number + 1)
                while received < 2 + 100 * (number + 1):
                    received += len((await other.read()).events)
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert held < 5e6
            slow.cancel()
            other.cancel()

    run(scenario())
