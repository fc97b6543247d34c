"""Ray nodes die while a server uses them. The jobs continue as soon as a node can run them."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from cluster import Cluster
from long_job import EPOCHS, submit

import gradwire as gw


@pytest.fixture
def cluster():
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="lost-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder)
        running = Cluster(folder)
        stack.callback(running.kill)
        yield running


def test_jobs_survive_a_node_that_dies_and_then_the_whole_cluster(cluster, tmp_path):
    server = gw.LocalServer(f"--ray={cluster.address}", data=tmp_path, env=cluster.environment)
    server.start()
    with gw.Client(server.address) as client:
        submit(client, "undisturbed").result()
        expected = client.models.get("undisturbed").weights_sha256
        seen = []
        for epoch in submit(client, "without-a-node").epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                cluster.kill_node()
                cluster.start_node()
        assert seen == list(range(1, EPOCHS + 1))
        assert client.models.get("without-a-node").weights_sha256 == expected

        job = submit(client, "without-a-cluster")
        before = [epoch.epoch for epoch, _ in zip(job.epochs(), range(20), strict=False)]
        cluster.kill()
    assert server.process.wait(60) == 75, server.log.read_text()

    cluster.start()
    server.start()
    with gw.Client(server.address) as client:
        job = client.jobs.get("without-a-cluster")
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, EPOCHS + 1))
        assert client.models.get("without-a-cluster").weights_sha256 == expected
        assert before == list(range(1, 21))
    server.stop()
