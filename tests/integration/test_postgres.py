"""A server with a store in Postgres, which the tests start."""

import asyncio
import hashlib
import threading

import numpy as np
import pytest
from server_parts import open_jobs
from sqlalchemy import text

import gradwire as gw
from gradwire import SGD, CrossEntropy
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.errors import TensorInUseError
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.tensors import Tensors
from gradwire_server.store import tensor_queries
from gradwire_server.store.database import Database


def submit(client, digits, model, name, epochs=3):
    return client.jobs.submit(
        model,
        digits.train,
        test=digits.test,
        loss=CrossEntropy(),
        optimizer=SGD(model, lr=0.1),
        epochs=epochs,
        name=name,
    )


def test_jobs_events_and_models_are_stored_in_postgres_and_survive_the_server(postgres, tmp_path, digits, model):
    store = {"GRADWIRE_STORE": postgres.create("outlives")}
    with gw.LocalServer(data=tmp_path, env=store) as server, gw.Client(server.address) as client:
        job = submit(client, digits, model, "in-postgres")
        job.result()
        sequences = [event.sequence for event in job.events()]
        with pytest.raises(gw.AlreadyExistsError):
            submit(client, digits, model, "in-postgres")
        assert not (tmp_path / "gradwire.db").exists()
        assert "pg-password" not in server.log.read_text()  # the password
    with (
        gw.LocalServer("--memory-per-job=0.75", data=tmp_path, env=store) as server,
        gw.Client(server.address) as client,
    ):
        assert [event.sequence for event in client.jobs.get("in-postgres").events()] == sequences
        assert [found.name for found in client.jobs.list('name : "postgres"')] == ["in-postgres"]
        assert client.models.predict("in-postgres", digits.test[0]).shape == (360, 10)
        unused = client.tensors.upload(np.arange(7))
        for tensor in client.tensors.list():
            if tensor.referenced:
                with pytest.raises(gw.FailedPreconditionError, match="is in use"):
                    client.tensors.delete(tensor)
            elif tensor.sha256 == unused.sha256:
                client.tensors.delete(tensor)
        assert client.tensors.missing([unused]) == [unused]
        # The settings of this server limit the memory of a job.
        wide = gw.Sequential(gw.Linear(900_000), gw.Linear(10))
        with pytest.raises(
            gw.FailedPreconditionError, match=r"needs about .* GiB.* a worker has only 0\.5 GiB"
        ) as caught:
            submit(client, digits, wide, "too-large")
        assert caught.value.reason == "JOB_TOO_LARGE"


def test_a_job_survives_a_crash_of_postgres(postgres, tmp_path, digits, model):
    store = {"GRADWIRE_STORE": postgres.create("crash")}
    with gw.LocalServer(data=tmp_path, env=store) as server, gw.Client(server.address) as client:
        job = submit(client, digits, model, "through-a-crash", epochs=2000)
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 50:
                postgres.stop()
                postgres.start()
        assert seen == list(range(1, 2001))
        assert job.refresh().state == "SUCCEEDED"
        assert server.process.poll() is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somewhere/db", "mysql://"),
        ("not a url", "must be a URL"),
        ("postgresql://gradwire:secret@127.0.0.1:1/db", "postgresql://gradwire:***@127.0.0.1:1/db"),
    ],
)
def test_the_url_of_a_store_that_cannot_be_used_is_shown_without_its_password(tmp_path, url, said):
    with pytest.raises(gw.UnavailableError) as caught:
        gw.LocalServer(data=tmp_path, env={"GRADWIRE_STORE": url}).start()
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_tensor_is_not_deleted_while_another_server_creates_a_job_with_it(postgres, tmp_path):
    url = postgres.create("creates_and_deletes")
    here, there = Database(url), Database(url)
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    sha256 = hashlib.sha256(b"data").hexdigest()
    blobs.put(sha256, b"data")
    is_checked, gate = threading.Event(), threading.Event()

    def check_stored(_connection):
        is_checked.set()
        gate.wait(60)

    async def a_transaction_waits():
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return await here.read(lambda connection: connection.scalar(query)) > 0

    async def scenario():
        await here.write(lambda connection: tensor_queries.blob_store_mark(connection, "mark"))
        lease = Lease(here)
        await lease.try_acquire()
        spec = JobSpec(epochs=3, train=Dataset(inputs=TensorRef(sha256=sha256)))
        creating = asyncio.create_task(open_jobs(here, lease).create("a", spec=spec, check_stored=check_stored))
        await asyncio.to_thread(is_checked.wait, 60)
        deleting = asyncio.create_task(Tensors(there, blobs).delete(OPERATOR, f"tensors/{sha256}"))
        while not deleting.done() and not await a_transaction_waits():
            await asyncio.sleep(0.01)
        gate.set()
        await creating
        with pytest.raises(TensorInUseError):
            await deleting
        assert blobs.has(sha256)

    try:
        asyncio.run(scenario())
    finally:
        gate.set()
        for database in (here, there):
            database.close()
