"""What nothing needs is deleted, a day after it was last wanted; all else stays."""

import asyncio
import hashlib
import os
import time

import pytest

from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.jobs.commands import Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.scheduling.lease import Lease
from gradwire_server.storage.blob_store import KEPT_SECONDS, BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.storage.garbage_collector import Collector
from gradwire_server.store.database import Database


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def store(tmp_path):
    """A blob store with a blob of each kind, all of them old, and a collector on it."""
    database = Database(tmp_path / "gradwire.db")
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    blobs.set_mark("mark")
    checkpoints = Checkpoints(blobs)
    lease = Lease(database)
    asyncio.run(lease.try_take())
    names = ("inputs", "targets", "nobody's", "wanted again")
    for name in names:
        blobs.put(digest(name), name.encode())
    data = Dataset(inputs=TensorRef(sha256=digest("inputs")), targets=TensorRef(sha256=digest("targets")))
    asyncio.run(Jobs(database, Changes(), lease).create(JobSpec(train=data), True, "a", ""))
    for job in (1, 2):  # There is no second job.
        checkpoints.save(job, Checkpoint(epoch=1, weights=TensorRef(sha256=digest("weights"))), b"weights")
    (blobs.staging / "broken-off.part").write_bytes(b"half")
    for path in (tmp_path / "blobs").rglob("*"):
        os.utime(path, (0, time.time() - KEPT_SECONDS - 10))
    (blobs.staging / "under-way.part").write_bytes(b"half")
    yield blobs, Collector(database, blobs, checkpoints), checkpoints
    database.close()


def test_only_what_nothing_names_goes(store):
    blobs, collector, checkpoints = store
    assert blobs.keep(digest("wanted again"))
    assert not blobs.keep(digest("never there"))
    assert asyncio.run(collector.sweep()) == 3
    assert not blobs.has(digest("nobody's"))
    assert all(blobs.has(digest(name)) for name in ("inputs", "targets", "wanted again"))
    assert blobs.has(blobs.probe)
    assert blobs.mark == "mark"
    assert checkpoints.newest(1) is not None
    assert checkpoints.newest(2) is None
    assert [path.name for path in blobs.staging.iterdir()] == ["under-way.part"]
    assert asyncio.run(collector.sweep()) == 0


def test_what_is_wanted_while_it_is_swept_stays(store):
    blobs, _, _ = store
    path = blobs.blob_path(digest("nobody's"))
    assert path in blobs.old_files()
    blobs.keep(digest("nobody's"))
    assert not blobs.delete_if_old(path)
    assert blobs.has(digest("nobody's"))
