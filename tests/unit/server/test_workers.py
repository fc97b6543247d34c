"""The parts of the worker pool and the cluster that do not need Ray."""

import asyncio
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from gradwire_proto.v1.spec_pb2 import Device
from gradwire_server.settings import Settings, SettingsError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.workers import handle, ray_cluster
from gradwire_server.workers import pool as pool_module
from gradwire_server.workers.handle import WorkerHandle
from gradwire_server.workers.pool import IdleWorker, WorkerPool
from gradwire_server.workers.ray_cluster import ClusterLostError, RayCluster, share_memory


@pytest.fixture
def cluster(tmp_path):
    return RayCluster(Settings(data=tmp_path))


def test_a_ray_startup_failure_is_a_one_line_error(cluster, monkeypatch):
    def init(**_options):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with pytest.raises(SettingsError, match="cannot start Ray on this machine: The current node timed out"):
        cluster.connect()


def test_a_plan_for_cpus_sends_jobs_to_cpus(tmp_path, cluster, monkeypatch):
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    monkeypatch.setattr(RayCluster, "has_gpu", True)
    for plan, expected in (("", "gpu"), ("cuda", "gpu"), ("reference", "gpu"), ("compiled", "cpu")):
        pool = WorkerPool(Settings(data=tmp_path, plan=plan), cluster, blobs)
        assert pool.device_for(Device.DEVICE_AUTO) == expected, plan
        assert pool.device_for(Device.DEVICE_GPU) == "gpu"


@pytest.fixture
def pool(tmp_path, cluster):
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    return WorkerPool(Settings(data=tmp_path, cpus_per_job=2), cluster, blobs)


class FakeWorker:
    """The handle of a worker that is alive until a test changes that."""

    device, reads_blobs, is_dead = "cpu", True, False

    def __init__(self, name):
        self.name = name

    async def is_alive(self):
        return not self.is_dead


@pytest.fixture
def created(cluster, monkeypatch):
    """The options and arguments of all actors that the pool creates, on a cluster with capacity for two."""
    actors = []

    class Trainers:
        def __init__(self, options):
            self.options = options

        def remote(self, *arguments):
            actors.append((self.options, arguments))

    async def connect(name, *_):
        return FakeWorker(name)

    monkeypatch.setattr(pool_module.ray, "remote", lambda _class: SimpleNamespace(options=lambda **o: Trainers(o)))
    monkeypatch.setattr(pool_module.WorkerHandle, "connect", connect)
    monkeypatch.setattr(pool_module, "kill_actor", lambda name: actors.append(f"kill {name}"))
    cluster._capacity = {"cpu": 2, "gpu": 0}
    return actors


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 20))


def test_a_worker_is_told_to_end_when_no_server_has_called_for_15_minutes(pool, created):
    async def scenario():
        worker = await pool.acquire("cpu")
        ((options, arguments),) = created
        assert arguments == (15 * 60, 0)  # and no memory limit
        assert (options["name"], options["lifetime"], options["num_cpus"]) == (worker.name, "detached", 2)
        assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"

    run(scenario())


def test_a_released_worker_is_lent_again_and_a_dead_or_discarded_one_is_replaced(pool, created):
    async def scenario():
        first = await pool.acquire("cpu")
        pool.release(first)
        assert await pool.acquire("cpu") is first
        pool.release(first)
        first.is_dead = True
        second = await pool.acquire("cpu")
        assert second is not first
        pool.discard(second)
        third = await pool.acquire("cpu")
        assert third not in (first, second)
        assert f"kill {second.name}" in created
        assert pool.free("cpu") == 1

    run(scenario())


def test_no_more_workers_exist_than_the_cluster_can_hold(pool, created):
    async def scenario():
        workers = [await pool.acquire("cpu") for _ in range(2)]
        assert pool.free("cpu") == 0
        waiting = asyncio.create_task(pool.acquire("cpu"))
        while pool._lent["cpu"] < 3:
            await asyncio.sleep(0)
        pool.release(workers[0])
        assert await asyncio.wait_for(waiting, 10) is workers[0]
        assert len(created) == 2

    run(scenario())


def test_a_discarded_worker_is_replaced_for_an_attempt_that_waits(pool, created):
    async def scenario():
        workers = [await pool.acquire("cpu") for _ in range(2)]
        waiting = asyncio.create_task(pool.acquire("cpu"))
        while pool._lent["cpu"] < 3:
            await asyncio.sleep(0)
        pool.discard(workers[0])
        assert await waiting not in workers

    run(scenario())


@pytest.mark.parametrize("outlives", [False, True])
def test_a_server_with_its_own_ray_kills_its_workers_when_it_stops_scheduling(pool, created, monkeypatch, outlives):
    async def scenario():
        monkeypatch.setattr(RayCluster, "outlives_server", outlives)
        worker = await pool.acquire("cpu")
        pool.forget()
        while pool._background:
            await asyncio.sleep(0.001)
        assert created[1:] == ([] if outlives else [f"kill {worker.name}"])
        assert pool.free("cpu") == 2

    run(scenario())


def test_the_pool_knows_its_idle_workers_and_how_many_it_can_start(pool, created, cluster):
    async def scenario():
        cluster._hosts = {"n1": "host1"}
        assert (pool.idle(), pool.startable(), pool.capacity("cpu")) == ([], 2, 2)
        worker = await pool.acquire("cpu")
        worker.log = ("n1", "")
        assert (pool.idle(), pool.startable()) == ([], 1)
        pool.release(worker)
        assert pool.idle() == [IdleWorker("cpu", "host1")]
        cluster._hosts = {}  # The node has joined the cluster since it was measured.
        assert pool.idle() == [IdleWorker("cpu", "")]
        assert await pool.acquire("cpu") is worker
        assert pool.idle() == []
        pool.discard(worker)
        assert (pool.idle(), pool.startable()) == ([], 2)
        pool.release(await pool.acquire("cpu"))
        pool.forget()
        assert (pool.idle(), pool.startable()) == ([], 2)

    run(scenario())


def test_workers_that_no_server_uses_are_killed_and_the_others_are_pinged(pool, monkeypatch):
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


@pytest.mark.parametrize(
    ("device", "settings", "expected"),
    [
        ("gpu", {"tf32": True, "plan": ""}, {"GRADWIRE_TF32": "1", "GRADWIRE_PLAN": "", "OMP_NUM_THREADS": "1"}),
        ("gpu", {"plan": "reference"}, {"GRADWIRE_TF32": "", "GRADWIRE_PLAN": "reference", "OMP_NUM_THREADS": "1"}),
        (
            "cpu",
            {"cpus_per_job": 3.5, "plan": "compiled"},
            {
                "GRADWIRE_TF32": "",
                "GRADWIRE_PLAN": "compiled",
                "OMP_NUM_THREADS": "3",
                "OPENBLAS_NUM_THREADS": "3",
                "MKL_NUM_THREADS": "3",
                "CUDA_VISIBLE_DEVICES": "",
            },
        ),
    ],
)
def test_arithmetic_settings_reach_the_workers(tmp_path, device, settings, expected):
    chosen = Settings(data=tmp_path, **settings)
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    environment = WorkerPool(chosen, RayCluster(chosen), blobs)._environment(device)
    assert {name: environment[name] for name in expected} == expected
    assert ("CUDA_VISIBLE_DEVICES" in environment) == (device == "cpu"), "Ray chooses the GPU of a worker"


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


def test_no_other_work_can_delay_the_checks_of_the_head(cluster, monkeypatch):
    """Otherwise, calls that occupy all threads would look like a lost cluster, and the server would exit."""
    monkeypatch.setattr(ray_cluster, "_CHECK_SECONDS", 0)
    monkeypatch.setattr(ray_cluster, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(ray_cluster, "_try_connect", lambda _address: None)

    async def scenario():
        gate, checks = threading.Event(), threading.Semaphore(0)
        monkeypatch.setattr(cluster, "measure", checks.release)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, gate.wait, 30)
        watching = asyncio.create_task(cluster.watch())
        try:
            async with asyncio.timeout(30):
                for _ in range(5):
                    while not checks.acquire(blocking=False):
                        await asyncio.sleep(0.001)
                        assert not watching.done()
        finally:
            gate.set()
            watching.cancel()
            await asyncio.gather(watching, blocked, return_exceptions=True)

    asyncio.run(scenario())


def test_a_worker_that_has_just_answered_is_not_asked_again_and_another_is(monkeypatch):
    """The clock of the handle is replaced, so that the test controls how long ago the last answer was."""

    async def scenario():
        now, pings = 100.0, []

        async def answer(value):
            return value

        def ping():
            pings.append(now)
            return answer(None)

        monkeypatch.setattr(handle, "time", SimpleNamespace(monotonic=lambda: now))
        poll = SimpleNamespace(remote=lambda *_: answer((1, [], {})))
        actor = SimpleNamespace(ping=SimpleNamespace(remote=ping), poll=poll)
        worker = WorkerHandle("w", "cpu", actor, reads_blobs=True, log=("", ""), answered=now)
        assert await worker.is_alive()
        now = 110.0
        assert await worker.is_alive()
        assert pings == [110.0]
        now = 120.0
        await worker.poll("jobs/a", 1, 0, 1.0)
        assert await worker.is_alive()
        assert pings == [110.0]

    run(scenario())


def test_after_one_worker_is_lost_the_others_are_asked_although_they_have_just_answered(pool, created):
    """All workers of a node die with it. A job that lost one must not be sent to the next dead one."""

    class JustAnswered(FakeWorker):
        answered = 0.0

        async def is_alive(self):
            return self.answered == 0.0 or not self.is_dead

    async def scenario():
        first, second = await pool.acquire("cpu"), await pool.acquire("cpu")
        for worker in (first, second):
            worker.__class__ = JustAnswered
            worker.is_dead = True
        pool.release(second)
        pool.discard(first)
        assert await pool.acquire("cpu") not in (first, second)

    run(scenario())
