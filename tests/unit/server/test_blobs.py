"""Blobs, uploads and checkpoints."""

import asyncio
import hashlib
import os

import pytest

from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import (
    Checkpoint,
)
from gradwire_server.errors import ServiceError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.storage.disk_space import Room, refusing_when_full
from gradwire_server.storage.uploads import Uploads

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory"])
def blobs(request, tmp_path):
    url = (tmp_path / "blobs").as_uri() if request.param == "file" else f"memory://{tmp_path.name}"
    return BlobStore(url, tmp_path / "staging")


def send(uploads, data, offset=0):
    async def scenario():
        async with uploads.receive(SHA, len(DATA), offset) as upload:
            if upload is None:
                return "there already"
            for start in range(0, len(data), 1000):
                await upload.write(data[start : start + 1000])
            return await upload.finish()

    return asyncio.run(scenario())


def test_an_upload_becomes_a_blob_when_it_is_whole(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    assert send(uploads, DATA) is True
    assert blobs.size(SHA) == len(DATA)
    assert send(uploads, DATA) == "there already"
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_goes_on_where_it_broke_off(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    assert send(uploads, DATA[:3000]) is False
    assert uploads.received_bytes(SHA) == 3000
    with pytest.raises(ServiceError, match="3000 bytes have arrived"):
        send(uploads, DATA[2000:], offset=2000)
    assert send(uploads, DATA[3000:], offset=3000) is True
    assert blobs.has(SHA)


def test_an_upload_may_start_again_from_nothing(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    send(uploads, DATA[:3000])
    assert send(uploads, DATA, offset=0) is True


def test_an_upload_with_another_digest_is_thrown_away(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))
    with pytest.raises(ServiceError, match="have the digest") as caught:
        send(uploads, DATA[::-1])
    assert caught.value.reason == "DIGEST_MISMATCH"
    assert uploads.received_bytes(SHA) == 0
    assert not blobs.has(SHA)


def test_an_upload_that_is_too_long_is_refused(blobs, tmp_path):
    with pytest.raises(ServiceError, match="brings more than"):
        send(Uploads(blobs, tmp_path / "uploads", Room(tmp_path)), DATA + b"!")
    assert not blobs.has(SHA)


def test_two_uploads_of_the_same_tensor_take_turns(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", Room(tmp_path))

    async def one():
        async with uploads.receive(SHA, len(DATA), 0) as upload:
            if upload is None:
                return "there already"
            await upload.write(DATA)
            return await upload.finish()

    async def scenario():
        return await asyncio.gather(one(), one())

    assert asyncio.run(scenario()) == [True, "there already"]


def test_a_full_disk_is_resource_exhausted():
    with pytest.raises(ServiceError, match="disk is full"), refusing_when_full():
        raise OSError(28, os.strerror(28))


def checkpoint(epoch, data):
    return Checkpoint(epoch=epoch, weights=TensorRef(sha256=hashlib.sha256(data).hexdigest()))


def test_the_newest_sound_checkpoint_is_used_and_old_ones_go(blobs):
    checkpoints = Checkpoints(blobs)
    assert checkpoints.newest(1) is None
    for epoch in (1, 5, 12):
        data = b"weights %d" % epoch
        checkpoints.save(1, checkpoint(epoch, data), data)
    files = sorted(blobs.fs.ls(f"{blobs.root}/checkpoints/1", detail=False))
    assert len(files) == 2
    assert checkpoints.newest(1).epoch == 12
    blobs.fs.pipe_file(files[-1], b"damaged")
    assert checkpoints.newest(1).weights == b"weights 5"
    checkpoints.drop(1)
    assert checkpoints.newest(1) is None
