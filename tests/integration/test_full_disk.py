"""A full disk: new jobs are refused, running jobs wait, and nothing is lost."""

import pytest
from disk import small_disk
from long_job import EPOCHS, submit

import gradwire as gw


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        if mounted is None:
            pytest.skip("only root can mount a small disk")
        yield mounted


@pytest.mark.parametrize("leave", [4 << 20, 0], ids=["nearly-full", "full"])
def test_running_jobs_wait_for_space_and_new_jobs_are_refused(disk, leave):
    with gw.LocalServer(data=disk.folder) as server, gw.Client(server.address, max_retries=0) as client:
        undisturbed = submit(client, "undisturbed")
        undisturbed.result()
        job = submit(client, "waits")
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                disk.fill(leave)
                with pytest.raises(gw.ResourceExhaustedError, match="disk") as caught:
                    submit(client, "refused")
                assert caught.value.reason == "DISK_FULL"
                assert caught.value.retry_after > 0
                with pytest.raises(gw.ResourceExhaustedError):
                    submit(client, "new-data", rows=3000)
                with server.log.open() as log:
                    while (
                        "running jobs are waiting" not in log.readline()
                    ):  # Read the file until the server has written the line.
                        pass
                assert client.jobs.get("waits").info.state == "RUNNING"
                disk.free()
        assert seen == list(range(1, EPOCHS + 1))
        assert any(event.reason == "DISK_FULL" for event in job.events())
        weights = [client.models.get(name).weights_sha256 for name in ("undisturbed", "waits")]
        assert weights[0] == weights[1]
        with pytest.raises(gw.NotFoundError):
            client.jobs.get("refused").refresh()
        assert submit(client, "after").result().epochs


def test_a_job_can_be_cancelled_and_deleted_while_others_wait_for_space(disk):
    with gw.LocalServer(data=disk.folder) as server, gw.Client(server.address) as client:
        job = submit(client, "ended")
        next(iter(job.epochs()))
        disk.fill(4 << 20)
        job.cancel()
        client.jobs.delete("ended")
        assert client.jobs.list() == []
