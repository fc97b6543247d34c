"""Stored tensors are listed in pages, deleted if nothing references them, and limited by a quota."""

import asyncio
import hashlib

import pytest
from server_parts import blocked_writes

from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.errors import TensorInUseError, TensorMissingError, TensorNotFoundError, TensorQuotaError
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
    def check_stored():
        raise TensorMissingError("job.spec.train.inputs", "0" * 64)

    async def scenario():
        with pytest.raises(TensorMissingError):
            await jobs.create("a", check_stored=check_stored)
        assert await jobs.records.queued(1) == []

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
