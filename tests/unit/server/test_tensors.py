"""Stored tensors are listed in pages, deleted if nothing references them, and limited by a quota."""

import asyncio
import hashlib
from unittest import mock

import numpy as np
import pytest
from server_parts import blocked_writes

from gradwire_engine.spec.summary import summarize
from gradwire_engine.spec.tensors import tensor_ref
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import TensorInUseError, TensorMissingError, TensorNotFoundError, TensorQuotaError
from gradwire_server.jobs import admission as admission_module
from gradwire_server.jobs.admission import Admission
from gradwire_server.jobs.job_size import SizeLimits
from gradwire_server.principal import OPERATOR
from gradwire_server.storage import tensor_quota as tensor_quota_module
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.tensor_quota import TensorQuota
from gradwire_server.storage.tensors import Tensors
from gradwire_server.store import model_queries


def put(blobs, text):
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    blobs.put(sha256, text.encode())
    return sha256


def spec_with(sha256):
    return JobSpec(epochs=3, train=Dataset(inputs=TensorRef(sha256=sha256)))


@pytest.fixture(params=["folder", "object store"])
def blobs(request, tmp_path):
    url = (tmp_path / "blobs").as_uri() if request.param == "folder" else f"memory://{tmp_path}/blobs"
    return BlobStore(url, tmp_path / "scratch")


@pytest.fixture
def tensors(database, blobs):
    return Tensors(database, blobs)


def test_tensors_are_listed_in_pages_in_the_order_of_their_digests(tensors, blobs, jobs):
    digests = sorted(put(blobs, str(number)) for number in range(600))

    async def scenario():
        await jobs.create("a", spec=spec_with(digests[7]))
        listed, after, more = [], "", True
        while more:
            page, more = await tensors.list(OPERATOR, after, 250)
            listed += page
            after = page[-1].blob.sha256
        assert [each.blob.sha256 for each in listed] == digests
        assert [each.blob.sha256 for each in listed if each.referenced] == [digests[7]]
        assert {each.blob.size for each in listed} == {1, 2, 3}
        assert await tensors.list(OPERATOR, digests[-1], 10) == ([], False)

    asyncio.run(scenario())


def test_only_a_tensor_that_nothing_references_is_deleted(tensors, blobs, jobs, database):
    of_job, of_model, unused = (put(blobs, text) for text in ("job", "model", "unused"))
    model = Model(name="models/m", weights=TensorRef(sha256=of_model))

    async def scenario():
        await jobs.create("a", spec=spec_with(of_job))
        await database.write(lambda connection: model_queries.insert_model(connection, "m", model))
        for sha256, owner in ((of_job, "job 'jobs/a'"), (of_model, "model 'models/m'")):
            with pytest.raises(TensorInUseError, match=f"in use: {owner} references it"):
                await tensors.delete(OPERATOR, f"tensors/{sha256}")
        await tensors.delete(OPERATOR, f"tensors/{unused}")
        for name in (unused, f"tensors/{unused}", f"tensors/{blobs.probe}", "tensors/../mark", "tensors/"):
            with pytest.raises(TensorNotFoundError):
                await tensors.delete(OPERATOR, name)
        assert [blobs.has(sha256) for sha256 in (of_job, of_model, unused)] == [True, True, False]

    asyncio.run(scenario())


def test_a_tensor_that_a_new_job_references_in_the_meantime_is_not_deleted(tensors, blobs, jobs, database):
    sha256 = put(blobs, "data")

    async def scenario():
        async with blocked_writes(database) as next_write:
            creating = asyncio.create_task(jobs.create("a", spec=spec_with(sha256)))
            await next_write()
            deleting = asyncio.create_task(tensors.delete(OPERATOR, f"tensors/{sha256}"))
            while database._writes.qsize() < 2:
                await asyncio.sleep(0.001)
        await creating
        with pytest.raises(TensorInUseError):
            await deleting
        assert blobs.has(sha256)

    asyncio.run(scenario())


def test_a_job_whose_tensor_was_deleted_in_the_meantime_is_refused(jobs):
    def check_stored(_connection):
        raise TensorMissingError("job.spec.train.inputs", "0" * 64)

    async def scenario():
        with pytest.raises(TensorMissingError):
            await jobs.create("a", check_stored=check_stored)
        assert await jobs.records.queued(1) == []

    asyncio.run(scenario())


@pytest.fixture
def admit(database, blobs):
    """A function that admits a job, and the references of its tensors, which are stored."""
    spec = JobSpec(epochs=1, batch_size=5)
    spec.model.layers.add().linear.out_features = 1
    spec.loss.mean_squared_error.SetInParent()
    spec.optimizer.sgd.learning_rate = 0.1
    arrays = np.arange(20, dtype=np.float32).reshape(10, 2), np.arange(10, dtype=np.float32).reshape(10, 1)
    for reference, array in zip((spec.train.inputs, spec.train.targets), arrays, strict=True):
        reference.CopyFrom(tensor_ref(array))
        blobs.put(reference.sha256, array.tobytes())
    admission = Admission(
        database=database,
        blobs=blobs,
        disk_space=mock.Mock(),
        warm_start=mock.Mock(apply=mock.AsyncMock(side_effect=lambda _principal, job: job)),
        cluster_has_gpu=lambda: False,
        limits=SizeLimits(1 << 30, threads=1),
        worker_memory=lambda: 0,
    )
    return lambda: admission.admit(OPERATOR, Job(spec=spec)), arrays[0].tobytes()


def sha256_of(data):
    return hashlib.sha256(data).hexdigest()


def test_a_job_is_refused_if_a_tensor_was_deleted_after_it_was_admitted(tensors, jobs, blobs, admit):
    admit, inputs = admit

    async def scenario():
        admitted = await admit()
        again = await admit()  # The summaries of its tensors are stored.
        await tensors.delete(OPERATOR, f"tensors/{sha256_of(inputs)}")
        for each in (admitted, again):
            with pytest.raises(TensorMissingError, match=r"job\.spec\.train\.inputs"):
                await jobs.create("a", check_stored=each.check_stored)
        blobs.put(sha256_of(inputs), inputs)
        await jobs.create("a", check_stored=admitted.check_stored, spec=admitted.job.spec)
        with pytest.raises(TensorInUseError):
            await tensors.delete(OPERATOR, f"tensors/{sha256_of(inputs)}")

    asyncio.run(scenario())


def test_a_job_is_refused_if_a_tensor_was_deleted_while_the_job_was_admitted(tensors, jobs, admit, monkeypatch):
    admit, inputs = admit

    def summarize_and_delete(array):
        summary = summarize(array)
        if array.shape[1] == 2:
            asyncio.run_coroutine_threadsafe(tensors.delete(OPERATOR, f"tensors/{sha256_of(inputs)}"), loop).result(30)
        return summary

    monkeypatch.setattr(admission_module, "summarize", summarize_and_delete)

    async def scenario():
        nonlocal loop
        loop = asyncio.get_running_loop()
        admitted = await admit()
        with pytest.raises(TensorMissingError, match=r"job\.spec\.train\.inputs"):
            await jobs.create("a", check_stored=admitted.check_stored)

    loop = None
    asyncio.run(scenario())


def test_a_tensor_beyond_the_quota_is_refused_until_something_is_deleted(blobs, monkeypatch):
    monkeypatch.setattr(tensor_quota_module, "_MEASURE_SECONDS", 3600)

    async def scenario():
        old = put(blobs, "x" * 1000)
        quota = TensorQuota(blobs, blobs.stored_bytes() + 100)
        await quota.require("0" * 64, 60)
        with pytest.raises(TensorQuotaError, match="Delete tensors") as caught:
            await quota.require("1" * 64, 60)
        assert caught.value.metadata["max_bytes"] == str(blobs.stored_bytes() + 100)
        await quota.require(old, 1000)  # It is already stored.
        blobs.delete(old)
        quota.forget()
        await quota.require("1" * 64, 1000)
        await TensorQuota(blobs, 0).require("1" * 64, 2**60)

    asyncio.run(scenario())
