"""The parts of the worker pool and the cluster that do not need Ray."""

import asyncio
import queue

import pytest

from gradwire_server.settings import Settings
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.workers import pool as pool_module
from gradwire_server.workers import ray_cluster
from gradwire_server.workers.handle import WorkerHandle
from gradwire_server.workers.pool import WorkerPool
from gradwire_server.workers.ray_cluster import ClusterLostError, RayCluster, share_memory


@pytest.fixture
def cluster(tmp_path):
    return RayCluster(Settings(data=tmp_path))


def test_workers_that_no_server_uses_are_killed_and_the_others_are_pinged(tmp_path, cluster, monkeypatch):
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    pool = WorkerPool(Settings(data=tmp_path), cluster, blobs)
    mine, left, other = f"{pool._name_prefix}mine-cpu", f"{pool._store_prefix}0.0.1-left-cpu", "trainer-other"
    pool._names.add(mine)
    done = queue.SimpleQueue()
    monkeypatch.setattr(pool_module, "_ABANDONED_SECONDS", 0.1)
    monkeypatch.setattr(pool_module.ray.util, "list_named_actors", lambda: [mine, left, other])
    monkeypatch.setattr(pool_module, "kill_actor", lambda name: done.put(("killed", name)))
    monkeypatch.setattr(pool_module, "ping_actor", lambda name: done.put(("pinged", name)))

    async def scenario():
        keeping = asyncio.create_task(pool.keep_alive())
        seen = [await asyncio.to_thread(done.get) for _ in range(4)]
        keeping.cancel()
        assert seen == [("pinged", mine), ("killed", left)] * 2

    asyncio.run(scenario())


def test_an_attempt_that_was_not_sent_to_a_worker_needs_no_stop():
    class Actor:
        def __init__(self):
            self.stopped = []

        @property
        def stop(self):
            return self

        def remote(self, *attempt):
            self.stopped.append(attempt)
            return asyncio.sleep(0)

    async def scenario():
        worker = WorkerHandle("worker", "cpu", Actor(), reads_blobs=True, log=("", ""), assigned=("jobs/a", 1))
        await worker.stop("jobs/a", 2)
        await worker.stop("jobs/a", 1)
        assert worker.actor.stopped == [("jobs/a", 1)]

    asyncio.run(scenario())


GIB = 1 << 30
NODES = [{"CPU": 4, "memory": 8 * GIB}, {"CPU": 2, "memory": 6 * GIB}, {"memory": GIB}, {"CPU": 1}, {"CPU": 0.5}]


def test_the_memory_of_a_node_is_divided_by_its_workers_and_the_smallest_share_counts():
    assert share_memory(NODES, Settings()) == (None, 2 * GIB)
    assert share_memory(NODES, Settings(cpus_per_job=2)) == (None, 4 * GIB)
    assert share_memory(NODES[2:], Settings()) == (None, 0)
    assert share_memory([], Settings()) == (None, 0)


def test_a_node_holds_as_many_workers_as_their_memory_and_its_processors_allow():
    assert share_memory(NODES, Settings(memory_per_job=3)) == (2 + 2, 3 * GIB)
    assert share_memory(NODES, Settings(memory_per_job=0.5)) == (4 + 2, GIB // 2)
    assert share_memory(NODES, Settings(memory_per_job=7)) == (1, 7 * GIB)


def test_a_job_can_have_the_memory_of_a_worker_but_not_what_the_worker_itself_needs(cluster):
    assert cluster.job_memory == 0
    for worker, job in ((GIB, GIB - (256 << 20)), (GIB // 8, 512 << 20)):
        cluster._worker_memory = worker
        assert cluster.job_memory == job


def test_a_cluster_whose_head_fails_three_checks_in_a_row_is_lost(cluster, monkeypatch):
    answers = iter([True, False, False, True, False, False, False])
    monkeypatch.setattr(ray_cluster, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "measure", lambda: None)
    cluster._head = "127.0.0.1:1"

    def try_connect(_address):
        if not next(answers):
            raise ConnectionRefusedError

    monkeypatch.setattr(ray_cluster, "_try_connect", try_connect)
    with pytest.raises(ClusterLostError, match=r"the head of Ray at 127\.0\.0\.1:1 is lost"):
        asyncio.run(cluster.watch())
    assert next(answers, "no more") == "no more"
