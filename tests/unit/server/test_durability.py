"""Data is stored before the server acknowledges it: only synced files and folders survive a simulated power failure."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.storage.uploads import Uploads

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


class Disk:
    """Records what was synced: the contents of files, and the names in folders."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, bytes] = {}
        self._names: dict[Path, set[str]] = {}

    def sync(self, descriptor: int) -> None:
        """Replace os.fsync."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self._names[path] = {each.name for each in path.iterdir()}
        else:
            self._files[path.stat().st_ino] = path.read_bytes()

    def after_a_power_failure(self, path: Path) -> bytes | None:
        """Return the contents of a file below the root, or None if the file would not exist."""
        folder = path
        while folder != self._root:
            folder, name = folder.parent, folder.name
            if name not in self._names.get(folder, set()):
                return None
        return self._files.get(path.stat().st_ino)


@pytest.fixture
def blobs(tmp_path):
    return BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")


@pytest.fixture
def disk(blobs, monkeypatch):
    made = Disk(Path(blobs.root))
    monkeypatch.setattr(os, "fsync", made.sync)
    return made


def test_a_blob_survives_a_power_failure(blobs, disk):
    blobs.put(SHA, DATA)
    assert disk.after_a_power_failure(Path(blobs.blob_path(SHA))) == DATA


def test_a_checkpoint_survives_a_power_failure(blobs, disk):
    checkpoints = CheckpointStore(blobs)
    for epoch in (1, 2):
        checkpoints.save(7, Checkpoint(epoch=epoch, weights=TensorRef(sha256=SHA)), DATA)
        path = Path(blobs.root, "checkpoints", "7", f"{epoch:010}-{SHA}")
        assert disk.after_a_power_failure(path) == DATA


def test_an_uploaded_tensor_survives_a_power_failure(blobs, disk, tmp_path):
    async def upload():
        async with Uploads(blobs, blobs.staging / "uploads", DiskSpace(tmp_path)).receive(SHA, len(DATA), 0) as upload:
            await upload.write(DATA[:9000])
            await upload.write(DATA[9000:])  # The data is short enough to stay in the file's buffer.
            return await upload.finish()

    assert asyncio.run(upload())
    assert disk.after_a_power_failure(Path(blobs.blob_path(SHA))) == DATA


def test_a_file_that_is_not_synced_does_not_survive(blobs, disk, monkeypatch):
    """The simulated disk loses unsynced data."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    blobs.put(SHA, DATA)
    assert disk.after_a_power_failure(Path(blobs.blob_path(SHA))) is None


def test_the_database_syncs_every_commit(database):
    def settings(connection):
        names = ("journal_mode", "synchronous")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    full = 2
    assert asyncio.run(database.write(settings)) == ["wal", full]
    assert asyncio.run(database.read(settings)) == ["wal", full]
