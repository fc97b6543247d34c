"""Blobs, uploads, checkpoints and disk space."""

import asyncio
import hashlib
import os
import tempfile
import tracemalloc
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.errors import (
    DigestMismatchError,
    DiskFullError,
    InvalidFieldsError,
    OffsetOutOfRangeError,
)
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace, disk_full_errors, wait_for_space
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
                return "already stored"
            for start in range(0, len(data), 1000):
                await upload.write(data[start : start + 1000])
            return await upload.finish()

    return asyncio.run(scenario())


def test_an_upload_becomes_a_blob_when_it_is_complete(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))
    assert send(uploads, DATA) is True
    assert blobs.size(SHA) == len(DATA)
    assert send(uploads, DATA) == "already stored"
    assert not list((tmp_path / "uploads").iterdir())


def test_an_interrupted_upload_continues_where_it_stopped(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))
    assert send(uploads, DATA[:3000]) is False
    assert uploads.received_bytes(SHA) == 3000
    with pytest.raises(OffsetOutOfRangeError, match="3000 bytes have arrived") as caught:
        send(uploads, DATA[2000:], offset=2000)
    assert caught.value.metadata == {"offset": "2000", "received_bytes": "3000"}
    assert send(uploads, DATA[3000:], offset=3000) is True
    assert blobs.has(SHA)


def test_an_interrupted_upload_can_start_again_at_offset_0(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))
    send(uploads, DATA[:3000])
    assert send(uploads, DATA, offset=0) is True


@settings(max_examples=25, derandomize=True, deadline=None, database=None, phases=[Phase.generate])
@given(
    cuts=st.lists(st.tuples(st.integers(0, len(DATA)), st.booleans()), max_size=5),
    chunk=st.integers(1, 3000),
    wrong=st.booleans(),
)
def test_an_upload_that_is_cut_anywhere_continues_to_the_same_blob(cuts, chunk, wrong):
    """Each connection ends after some bytes. The next one continues at that offset, or starts again at 0."""

    async def connection(offset, data):
        async with uploads.receive(SHA, len(DATA), offset) as upload:
            for start in range(0, len(data), chunk):
                await upload.write(data[start : start + chunk])
            return await upload.finish()

    async def scenario():
        received = 0
        for count, again in cuts:
            offset = 0 if again else received
            data = DATA[offset : offset + min(count, len(DATA) - 1 - offset)]
            assert not await connection(offset, data)
            received = max(received, offset + len(data))  # The longer of two partial uploads is kept.
            assert uploads.received_bytes(SHA) == received
            assert not blobs.has(SHA)
        rest = DATA[received:]
        if wrong:
            with pytest.raises(DigestMismatchError):
                await connection(received, rest[:-1] + bytes([rest[-1] ^ 1]))
            assert uploads.received_bytes(SHA) == 0
            received, rest = 0, DATA
        assert await connection(received, rest)
        assert Path(blobs.blob_path(SHA)).read_bytes() == DATA

    with tempfile.TemporaryDirectory(prefix="upload-") as folder, mock.patch.object(os, "fsync"):
        blobs = BlobStore(Path(folder, "blobs").as_uri(), Path(folder, "scratch"))
        uploads = Uploads(blobs, blobs.staging / "uploads", DiskSpace(Path(folder)))
        asyncio.run(scenario())


def test_a_link_in_the_place_of_an_upload_is_not_followed(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))
    victim = tmp_path / "victim"
    victim.write_bytes(b"not of the server")
    part = tmp_path / "uploads" / f"{SHA}.part"
    part.symlink_to(victim)
    assert uploads.received_bytes(SHA) == 0
    assert send(uploads, DATA[:3000]) is False
    assert not part.is_symlink()
    assert victim.read_bytes() == b"not of the server"
    assert send(uploads, DATA[3000:], offset=3000) is True
    assert blobs.fs.cat_file(blobs.blob_path(SHA)) == DATA


def test_an_upload_with_a_different_digest_is_deleted(blobs, tmp_path):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))
    with pytest.raises(DigestMismatchError, match="have the digest"):
        send(uploads, DATA[::-1])
    assert uploads.received_bytes(SHA) == 0
    assert not blobs.has(SHA)


def test_an_upload_that_is_too_long_is_refused(blobs, tmp_path):
    with pytest.raises(InvalidFieldsError, match="goes beyond"):
        send(Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path)), DATA + b"!")
    assert not blobs.has(SHA)


def run_uploads(blobs, tmp_path, scenario):
    return asyncio.run(scenario(Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))))


def test_a_stalled_upload_does_not_delay_others_of_the_same_tensor(blobs, tmp_path):
    async def scenario(uploads):
        async with uploads.receive(SHA, len(DATA), 0) as held:
            await held.write(DATA[:3000])
            async with asyncio.timeout(10), uploads.receive(SHA, len(DATA), 0) as other:
                await other.write(DATA)
                assert await other.finish()
            # Anything that the client still sends is ignored.
            await held.write(DATA[3000:4000])
            assert held.is_stored
            assert await held.finish()

    run_uploads(blobs, tmp_path, scenario)
    assert blobs.has(SHA)
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_whose_connection_was_lost_silently_can_be_continued(blobs, tmp_path, monkeypatch):
    async def scenario(uploads):
        async with uploads.receive(SHA, len(DATA), 0) as lost:
            await lost.write(DATA[:3000])
            await lost._wait_for_pending()
            assert uploads.received_bytes(SHA) == 0  # Its client could still be sending.
            monkeypatch.setattr("gradwire_server.storage.uploads._STALLED_SECONDS", -1.0)
            assert uploads.received_bytes(SHA) == 3000
            async with uploads.receive(SHA, len(DATA), 3000) as following:
                with pytest.raises(OffsetOutOfRangeError, match="another upload"):
                    await lost.write(DATA[3000:4000])
                await following.write(DATA[3000:])
                assert await following.finish()

    run_uploads(blobs, tmp_path, scenario)
    assert blobs.size(SHA) == len(DATA)
    assert not list((tmp_path / "uploads").iterdir())


def test_the_longest_part_of_a_tensor_is_kept_even_when_the_server_is_killed(blobs, tmp_path):
    folder, space = tmp_path / "uploads", DiskSpace(tmp_path)
    assert send(Uploads(blobs, folder, space), DATA[:3000]) is False
    assert send(Uploads(blobs, folder, space), DATA[:2000]) is False
    assert Uploads(blobs, folder, space).received_bytes(SHA) == 3000
    (folder / f"{SHA}.7.active").write_bytes(DATA[:5000])
    following = Uploads(blobs, folder, space)
    assert following.received_bytes(SHA) == 5000
    assert send(following, DATA[5000:], offset=5000) is True


def test_an_empty_chunk_is_refused(blobs, tmp_path):
    async def scenario(uploads):
        async with uploads.receive(SHA, len(DATA), 0) as upload:
            with pytest.raises(InvalidFieldsError, match="must not be empty"):
                await upload.write(b"")

    run_uploads(blobs, tmp_path, scenario)


def test_the_errno_of_a_full_disk_becomes_a_disk_full_error():
    with pytest.raises(DiskFullError, match="disk of the server is full"), disk_full_errors():
        raise OSError(28, os.strerror(28))


MIB = 1 << 20


def disk(free, total=100_000, for_root=0, inodes=0, free_inodes=0):
    """Return what the operating system reports about a disk. All sizes are in MiB."""
    return SimpleNamespace(
        f_frsize=MIB, f_bavail=free, f_bfree=free + for_root, f_blocks=total, f_files=inodes, f_favail=free_inodes
    )


def disk_with(monkeypatch, *sizes, **options):
    """Simulate that all folders are on a disk; see `disk`."""
    found = disk(*sizes, **options)
    monkeypatch.setattr(os, "statvfs", lambda _folder: found)


@pytest.mark.parametrize(("total", "reserve"), [(100_000, 64), (400, 20)], ids=["large", "small"])
def test_new_work_needs_its_own_size_plus_twice_the_reserve(tmp_path, monkeypatch, total, reserve):
    space = DiskSpace(tmp_path)
    disk_with(monkeypatch, 2 * reserve, total)
    space.require_for_new_work()
    with pytest.raises(DiskFullError, match=f"only {2 * reserve} MiB"):
        space.require_for_new_work(1)
    disk_with(monkeypatch, 2 * reserve + 7, total)
    space.require_for_new_work(7 * MIB)
    disk_with(monkeypatch, 2 * reserve - 1, total)
    with pytest.raises(DiskFullError):
        space.require_for_new_work()
    space.require_for_running_work()
    disk_with(monkeypatch, reserve, total)
    space.require_for_running_work()
    disk_with(monkeypatch, reserve - 1, total)
    with pytest.raises(DiskFullError):
        space.require_for_running_work()


def test_the_disk_with_the_least_space_counts(tmp_path, monkeypatch):
    blocks = {"data": 1000, "blobs": 10}
    monkeypatch.setattr(os, "statvfs", lambda folder: disk(blocks[folder.name]))
    DiskSpace(tmp_path / "data").require_for_new_work()
    with pytest.raises(DiskFullError, match="only 10 MiB"):
        DiskSpace(tmp_path / "data", tmp_path / "blobs").require_for_new_work()


@pytest.mark.parametrize(("inodes", "reserve"), [(6_000_000, 10_000), (1000, 50)], ids=["large", "small"])
def test_new_work_needs_twice_the_reserve_of_inodes(tmp_path, monkeypatch, inodes, reserve):
    space = DiskSpace(tmp_path)
    for free, running, new, tight in (
        (3 * reserve, True, True, False),
        (2 * reserve, True, True, True),
        (2 * reserve - 1, True, False, True),
        (reserve, True, False, True),
        (reserve - 1, False, False, True),
    ):
        disk_with(monkeypatch, 50_000, inodes=inodes, free_inodes=free)
        assert space.is_tight() is tight
        for required, is_enough in ((space.require_for_running_work, running), (space.require_for_new_work, new)):
            if is_enough:
                required()
            else:
                with pytest.raises(DiskFullError, match=f"inodes for only {free} more files"):
                    required()
        space.is_tight()  # Forget the refusal.


def test_a_disk_that_reports_no_inodes_has_enough_of_them(tmp_path, monkeypatch):
    disk_with(monkeypatch, 50_000, inodes=0, free_inodes=0)
    space = DiskSpace(tmp_path)
    space.require_for_new_work()
    assert not space.is_tight()


@pytest.mark.parametrize(
    ("size", "is_tight"),
    [(94_000 - 128, True), (94_000 - 127, False), (2**40, False)],
    ids=["fits on the empty disk", "does not quite fit", "absurd"],
)
def test_only_work_that_an_empty_disk_could_hold_makes_the_disk_tight(tmp_path, monkeypatch, size, is_tight):
    space = DiskSpace(tmp_path)
    disk_with(monkeypatch, free=50_000, total=100_000, for_root=6_000)
    assert not space.is_tight()
    with pytest.raises(DiskFullError):
        space.require_for_new_work(size * MIB)
    assert space.is_tight() is is_tight
    assert not space.is_tight()  # Only refusals since the last call count.


def test_an_upload_starts_only_if_the_rest_of_it_fits_on_the_disk(blobs, tmp_path, monkeypatch):
    uploads = Uploads(blobs, tmp_path / "uploads", DiskSpace(tmp_path))

    async def receive(size, offset):
        async with uploads.receive(SHA, size, offset) as upload:
            return upload is not None

    send(uploads, DATA[:3000])
    disk_with(monkeypatch, 2 * 64 + 5)
    assert asyncio.run(receive(5 * MIB + 3000, 3000))
    with pytest.raises(DiskFullError):
        asyncio.run(receive(5 * MIB + 3001, 3000))
    assert uploads.received_bytes(SHA) == 3000


def checkpoint(epoch, data):
    return Checkpoint(epoch=epoch, weights=TensorRef(sha256=hashlib.sha256(data).hexdigest()))


def saved(checkpoints, *epochs):
    for epoch in epochs:
        data = b"weights %d" % epoch
        checkpoints.save(1, checkpoint(epoch, data), data)


def files_of(blobs):
    return sorted(blobs.fs.ls(f"{blobs.root}/checkpoints/1", detail=False))


def test_the_newest_intact_checkpoint_is_used_and_old_ones_are_deleted(blobs):
    checkpoints = CheckpointStore(blobs)
    assert checkpoints.newest_intact(1, up_to=99) is None
    saved(checkpoints, 1, 5, 12)
    checkpoints.prune(1, kept=())
    files = files_of(blobs)
    assert len(files) == 2
    assert checkpoints.newest_intact(1, up_to=99).epoch == 12
    assert checkpoints.newest_intact(1, up_to=11).epoch == 5
    blobs.fs.pipe_file(files[-1], b"damaged")
    assert checkpoints.newest_intact(1, up_to=99).weights == b"weights 5"
    assert (checkpoints.is_intact(1, 5), checkpoints.is_intact(1, 12), checkpoints.is_intact(1, 6)) == (
        True, False, False,
    )  # fmt: skip
    checkpoints.delete_all(1)
    assert checkpoints.newest_intact(1, up_to=99) is None


def test_kept_checkpoints_are_not_deleted(blobs):
    checkpoints = CheckpointStore(blobs)
    saved(checkpoints, 2, 4, 5, 6, 7, 8, 9)
    checkpoints.prune(1, kept=(2, 4, 9))
    assert [int(PurePosixPath(path).name.partition("-")[0]) for path in files_of(blobs)] == [2, 4, 7, 8, 9]
    checkpoints.prune(1, kept=(2, 4, 9), others=0)
    assert [int(PurePosixPath(path).name.partition("-")[0]) for path in files_of(blobs)] == [2, 4, 9]


def test_an_epoch_has_one_checkpoint(blobs):
    checkpoints = CheckpointStore(blobs)
    saved(checkpoints, 2)
    checkpoints.save(1, checkpoint(2, b"another result"), b"another result")
    assert len(files_of(blobs)) == 1
    assert checkpoints.newest_intact(1, up_to=2).weights == b"another result"


def test_the_checkpoint_of_an_epoch_becomes_a_tensor_unless_it_is_damaged(blobs):
    checkpoints = CheckpointStore(blobs)
    saved(checkpoints, 2, 3)
    spec = JobSpec(dtype=DataType.DATA_TYPE_FLOAT32)
    spec.model.layers.add().linear.in_features = 1
    spec.model.layers[0].linear.out_features = 1
    tensor = checkpoints.as_tensor(1, 2, spec)
    assert (tensor.sha256, list(tensor.shape)) == (hashlib.sha256(b"weights 2").hexdigest(), [2])
    assert blobs.has(tensor.sha256)
    blobs.fs.pipe_file(files_of(blobs)[1], b"damaged")
    assert checkpoints.as_tensor(1, 3, spec) is None
    assert checkpoints.as_tensor(1, 4, spec) is None


def test_a_checkpoint_becomes_a_tensor_without_being_held_in_memory(blobs):
    checkpoints = CheckpointStore(blobs)
    spec = JobSpec(dtype=DataType.DATA_TYPE_FLOAT32)
    spec.model.layers.add().linear.SetInParent()
    assert checkpoints.newest_as_tensor(1, spec, up_to=2) is None
    for epoch in (1, 2):
        data = bytes([epoch]) * (24 << 20)
        checkpoints.save(1, checkpoint(epoch, data), data)
    newest = sorted(blobs.fs.ls(f"{blobs.root}/checkpoints/1", detail=False))[-1]
    del data
    tracemalloc.start()
    try:
        reference, epoch = checkpoints.newest_as_tensor(1, spec, up_to=2)
        assert epoch == 2
        assert blobs.has(reference.sha256)
        blobs.fs.rm_file(newest)
        blobs.fs.pipe_file(newest, b"damaged")
        # Its blob is stored already, so the file is not read again.
        assert checkpoints.newest_as_tensor(1, spec, up_to=2) == (reference, 2)
        blobs.delete(reference.sha256)
        assert checkpoints.newest_as_tensor(1, spec, up_to=2)[1] == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if blobs.is_local:  # The other store is itself in memory.
        assert peak < 16 << 20
    assert not list(blobs.staging.iterdir())


def test_a_write_waits_for_disk_space_and_learns_how_long_it_waited(monkeypatch):
    monkeypatch.setattr("gradwire_server.storage.disk_space._CHECK_SECONDS", 0.01)
    waits = []

    async def write(waited):
        waits.append(waited)
        if len(waits) < 3:
            raise DiskFullError("the disk is full")
        return "written"

    assert asyncio.run(wait_for_space(write)) == "written"
    assert waits[0] == 0
    assert 0.01 <= waits[1] < waits[2]
