"""Unreferenced files are deleted a day after their last use. All other files are kept."""

import asyncio
import hashlib
import os
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from server_parts import open_jobs
from sqlalchemy import func, select

from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState, StateChange
from gradwire_server.errors import DiskFullError, JobNotFoundError
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease
from gradwire_server.storage import garbage_collector as garbage_collector_module
from gradwire_server.storage.blob_store import RETENTION_SECONDS, TIGHT_RETENTION_SECONDS, BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.storage.garbage_collector import GarbageCollector
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.tables import events


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


async def leave_a_model(jobs, weights):
    """Let a job succeed, and delete it. Its model is kept."""
    record = await jobs.start("b")
    final = Checkpoint(epoch=3, weights=TensorRef(dtype=DataType.DATA_TYPE_FLOAT32, shape=[2], sha256=weights))
    succeeded = Event(state_change=StateChange(state=JobState.JOB_STATE_SUCCEEDED))
    await jobs.records.record_reports(
        record.job_key, 1, [Event(epoch=Epoch(epoch=3)), Event(checkpoint=final), succeeded], 3
    )
    await jobs.commands.delete(OPERATOR, "jobs/b")


@pytest.fixture
def store(tmp_path):
    """A blob store and its garbage collector. The store contains files of each kind, unused for more than a day."""
    database = Database(tmp_path / "gradwire.db")
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    blobs.set_mark("mark")
    checkpoints = CheckpointStore(blobs)
    lease = Lease(database)
    asyncio.run(lease.try_acquire())
    names = ("inputs", "targets", "weights of a model", "unreferenced", "used again")
    for name in names:
        blobs.put(digest(name), name.encode())
    data = Dataset(inputs=TensorRef(sha256=digest("inputs")), targets=TensorRef(sha256=digest("targets")))
    jobs = open_jobs(database, lease)
    asyncio.run(jobs.create("a", spec=JobSpec(train=data)))
    asyncio.run(leave_a_model(jobs, digest("weights of a model")))
    for job in (1, 2):  # The second job was deleted.
        checkpoints.save(job, Checkpoint(epoch=1, weights=TensorRef(sha256=digest("weights"))), b"weights")
    (blobs.staging / "interrupted.part").write_bytes(b"half")
    for path in (tmp_path / "blobs").rglob("*"):
        os.utime(path, (0, time.time() - RETENTION_SECONDS - 10))
    (blobs.staging / "in-progress.part").write_bytes(b"half")
    yield blobs, GarbageCollector(database, blobs, checkpoints, DiskSpace(tmp_path)), checkpoints
    database.close()


def test_only_unreferenced_files_are_deleted(store):
    blobs, collector, checkpoints = store
    assert blobs.touch(digest("used again"))
    assert not blobs.touch(digest("never there"))
    assert asyncio.run(collector.collect()) == 3
    assert not blobs.has(digest("unreferenced"))
    assert all(blobs.has(digest(name)) for name in ("inputs", "targets", "weights of a model", "used again"))
    assert blobs.has(blobs.probe)
    assert blobs.mark == "mark"
    assert checkpoints.newest_intact(1, up_to=1) is not None
    assert checkpoints.newest_intact(2, up_to=1) is None
    assert [path.name for path in blobs.staging.iterdir()] == ["in-progress.part"]
    assert asyncio.run(collector.collect()) == 0


def test_a_blob_that_is_used_during_a_collection_is_kept(store):
    blobs, _, _ = store
    path = blobs.blob_path(digest("unreferenced"))
    assert path in blobs.unused_files()
    blobs.touch(digest("unreferenced"))
    assert not blobs.delete_if_unused(path)
    assert blobs.has(digest("unreferenced"))


@pytest.mark.parametrize(("hours", "deleted"), [(23.9, 0), (24.1, 1)])
def test_a_file_is_kept_for_a_day_after_its_last_use(store, hours, deleted):
    blobs, collector, _ = store
    asyncio.run(collector.collect())
    blobs.put(digest("old"), b"old")
    os.utime(blobs.blob_path(digest("old")), (0, time.time() - hours * 3600))
    assert asyncio.run(collector.collect()) == deleted


def age(blobs, name, seconds):
    os.utime(blobs.blob_path(digest(name)), (0, time.time() - seconds))


def test_unreferenced_files_are_deleted_after_minutes_while_the_disk_is_nearly_full(store, monkeypatch):
    blobs, collector, _ = store
    monkeypatch.setattr(garbage_collector_module, "_CHECK_SECONDS", 0.001)
    monkeypatch.setattr(garbage_collector_module, "_TIGHT_INTERVAL_SECONDS", 0)
    age(blobs, "unreferenced", TIGHT_RETENTION_SECONDS + 10)
    age(blobs, "used again", TIGHT_RETENTION_SECONDS - 10)
    (blobs.staging / "interrupted.part").unlink()
    disk = SimpleNamespace(f_frsize=1 << 30, f_bavail=50, f_bfree=50, f_blocks=100, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _folder: disk)
    space = collector._disk_space
    checks, collected = [], []

    def is_tight():
        checks.append(DiskSpace.is_tight(space))
        return checks[-1]

    async def collect(*arguments):
        collected.append(await GarbageCollector.collect(collector, *arguments))

    monkeypatch.setattr(space, "is_tight", is_tight)
    monkeypatch.setattr(collector, "collect", collect)

    async def scenario():
        running = asyncio.create_task(collector.run())
        while len(checks) < 5:
            await asyncio.sleep(0.001)
            with pytest.raises(DiskFullError):
                space.require_for_new_work(2**60)  # No collection makes room for what exceeds the disk.
        assert collected == [], "there is enough space"
        with pytest.raises(DiskFullError):
            space.require_for_new_work(51 << 30)
        while not collected:
            await asyncio.sleep(0.001)
        running.cancel()

    asyncio.run(scenario())
    assert [blobs.has(digest(name)) for name in ("inputs", "unreferenced", "used again")] == [True, False, True]


def test_a_use_is_recorded_within_a_minute(store):
    blobs, _, _ = store
    age(blobs, "inputs", 100)
    blobs.touch(digest("inputs"))
    (used,) = [blob.used for blob in blobs.blobs_after("", 100) if blob.sha256 == digest("inputs")]
    assert time.time() - used < 60


def test_the_events_of_a_deleted_job_are_deleted_in_small_transactions(database, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(garbage_collector_module, "_EVENTS_PER_TRANSACTION", 10)
    monkeypatch.setattr(garbage_collector_module, "_CHECK_SECONDS", 0.001)
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    collector = GarbageCollector(database, blobs, CheckpointStore(blobs), DiskSpace(tmp_path))
    left = []

    def count(connection):
        left.append(connection.scalar(select(func.count()).select_from(events).where(events.c.job == 1)))
        return left[-1]

    async def write(work):
        result = await Database.write(database, work)
        await database.read(count)
        return result

    async def scenario():
        record = await jobs.start("a")
        epochs = [Event(epoch=Epoch(epoch=number)) for number in range(1, 96)]
        await jobs.records.record_reports(record.job_key, 1, epochs, 95)
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        await jobs.commands.delete(OPERATOR, "jobs/a")
        with pytest.raises(JobNotFoundError):
            await jobs.queries.get(OPERATOR, "jobs/a")
        await jobs.create("a")  # The name is free at once.
        monkeypatch.setattr(database, "write", write)
        collecting = asyncio.create_task(collector.run())
        while await database.read(job_queries.first_deleted_job):
            await asyncio.sleep(0.001)
        collecting.cancel()
        await asyncio.wait([collecting])
        assert await database.read(job_queries.job_keys) == {2}
        assert (await jobs.queries.get(OPERATOR, "jobs/a")).job_key == 2

    asyncio.run(scenario())
    assert left == sorted(left, reverse=True)
    assert left[0] == 88
    assert all(before - after <= 10 for before, after in pairwise(left))
    assert left[-1] == 0
