"""A disk that runs full, on a small one of its own: new work is refused, running work waits, nothing is lost."""

import pytest
from disk import small_disk
from long_job import EPOCHS, submit

import gradwire as gw


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        if mounted is None:
            pytest.skip("a disk of its own can be mounted only by root")
        yield mounted


@pytest.mark.parametrize("leave", [4 << 20, 0], ids=["nearly-full", "full"])
def test_running_jobs_wait_for_room_and_new_ones_are_refused(disk, leave):
    with gw.LocalServer(data=disk.folder) as server, gw.Client(server.address) as client:
        undisturbed = submit(client, "undisturbed")
        undisturbed.result()
        job = submit(client, "waits")
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                disk.fill(leave)
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
                disk.make_room()
        assert seen == list(range(1, EPOCHS + 1))
        assert any("the server's disk was full: nothing could be stored for" in event.text for event in job.events())
        weights = [client.model_info(name).weights_sha256 for name in ("undisturbed", "waits")]
        assert weights[0] == weights[1]
        with pytest.raises(gw.NotFoundError):
            client.job("refused").refresh()
        assert submit(client, "after").result().epochs


def test_a_job_can_be_ended_and_deleted_while_others_wait_for_room(disk):
    with gw.LocalServer(data=disk.folder) as server, gw.Client(server.address) as client:
        job = submit(client, "ended")
        next(iter(job.epochs()))
        disk.fill(4 << 20)
        job.cancel()
        client.delete("ended")
        assert client.jobs() == []
