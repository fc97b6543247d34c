"""A disk that runs full, on a small one of its own: new work is refused, running work waits, nothing is lost."""

import os
import subprocess

import numpy as np
import pytest

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

EPOCHS = 1500
SIZE_MIB = 100


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a disk of its own can be mounted only by root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk, *, leave):
    """Take all but so many bytes."""
    room = os.statvfs(disk)
    with (disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - leave)


def submit(client, name, rows=2000):
    gw.seed(0)
    model = Sequential(Linear(64, 96), ReLU(), Linear(96, 5))
    rng = np.random.default_rng(0)
    data = rng.random((rows, 64)), rng.integers(0, 5, rows)
    return client.submit(
        model, data, loss=CrossEntropy(), optimizer=SGD(model, lr=0.1), epochs=EPOCHS, batch_size=8, name=name
    )


@pytest.mark.parametrize("leave", [4 << 20, 0], ids=["nearly-full", "full"])
def test_running_jobs_wait_for_room_and_new_ones_are_refused(small_disk, leave):
    with gw.LocalServer(data=small_disk) as server, gw.Client(server.address) as client:
        undisturbed = submit(client, "undisturbed")
        undisturbed.result()
        job = submit(client, "waits")
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                fill(small_disk, leave=leave)
                with pytest.raises(gw.ResourceExhaustedError, match="make room there, or try again later") as caught:
                    submit(client, "refused")
                assert caught.value.reason == "DISK_FULL"
                with pytest.raises(gw.ResourceExhaustedError):
                    submit(client, "new-data", rows=3000)
                with server.log.open() as log:
                    # Read on until it is written.
                    while "running jobs wait for room" not in log.readline():
                        pass
                assert client.job("waits").info.state == "RUNNING"
                (small_disk / "ballast").unlink()
        assert seen == list(range(1, EPOCHS + 1))
        assert any("the server's disk was full: nothing could be stored for" in event.text for event in job.events())
        weights = [client.model_info(name).weights_sha256 for name in ("undisturbed", "waits")]
        assert weights[0] == weights[1]
        with pytest.raises(gw.NotFoundError):
            client.job("refused").refresh()
        assert submit(client, "after").result().epochs


def test_a_job_can_be_ended_and_deleted_while_others_wait_for_room(small_disk):
    with gw.LocalServer(data=small_disk) as server, gw.Client(server.address) as client:
        job = submit(client, "ended")
        next(iter(job.epochs()))
        fill(small_disk, leave=4 << 20)
        job.cancel()
        client.delete("ended")
        assert client.jobs() == []
