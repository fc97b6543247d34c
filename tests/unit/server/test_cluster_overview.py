"""What ListWorkers says about the workers and the queue."""

import asyncio
import platform
from types import SimpleNamespace

import numpy as np
import pytest
from server_without_ray import serving

import gradwire as gw
from gradwire_proto.v1.spec_pb2 import Device, JobSpec
from gradwire_proto.v1.training_service_pb2 import Job, JobState
from gradwire_server.scheduling import overview
from gradwire_server.scheduling.overview import wait_reasons
from gradwire_server.store import job_queries

HOST = platform.node()


async def submit(client, name):
    """Submit a job whose epochs never end."""
    model = gw.Sequential(gw.Linear(4, 3))
    data = np.zeros((20, 4), np.float32), np.arange(20) % 3
    return await client.jobs.submit(
        model, data, loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=10**6, name=name
    )


def rows(info):
    return [(each.job, each.attempt, each.device, each.host) for each in info.workers]


def test_the_workers_and_the_queue_are_listed_by_every_server(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")

    async def scenario():
        async with serving(tmp_path) as running, gw.AsyncClient(running.address) as client:
            info = await client.workers()
            assert rows(info) == [(None, 0, "cpu", HOST)]
            assert (info.busy, info.idle, info.startable, info.queue, info.queued) == (0, 1, 0, (), 0)

            first = await submit(client, "first")
            await anext(first.epochs())
            for name in ("second", "third"):
                await submit(client, name)
            info = await client.workers()
            assert rows(info) == [("first", 1, "cpu", HOST)]
            assert (info.busy, info.idle, info.queued, info.complete) == (1, 0, 2, True)
            assert [(each.name, each.reason) for each in info.queue] == [
                ("second", "all CPU workers are busy"),
                ("third", "all CPU workers are busy, 1 job before it"),
            ]
            assert info.queue[0].created == (await client.jobs.get("second")).info.created

            monkeypatch.setattr(overview, "_MAX_QUEUED", 1)
            running.server.leader.scheduler = None  # As if another server scheduled.
            info = await client.workers()
            assert rows(info) == [("first", 1, "cpu", HOST)]
            assert (info.busy, info.idle, info.startable, info.complete) == (1, 0, 0, False)
            assert ([each.reason for each in info.queue], info.queued) == (["waits for a worker"], 2)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_job_that_starts_again_is_not_yet_on_the_machine_of_its_last_attempt(database, jobs):
    async def scenario():
        record = await jobs.start("a")
        record.job.execution.host, record.job.execution.device = "before, a processor", "gpu"
        await database.write(lambda connection: job_queries.save_job(connection, record))
        view = overview.ClusterOverview(database, SimpleNamespace(scheduler=None), None)
        (worker,) = (await view.get(None)).workers
        assert (worker.job, worker.attempt, worker.host, worker.device) == ("jobs/a", 1, "", "")
        record.job.state = JobState.JOB_STATE_RUNNING
        await database.write(lambda connection: job_queries.save_job(connection, record))
        (worker,) = (await view.get(None)).workers
        assert (worker.job, worker.attempt, worker.host, worker.device) == ("jobs/a", 1, "before", "gpu")

    asyncio.run(scenario())


def test_the_lists_are_bounded_and_the_counts_are_not(database, jobs, monkeypatch):
    monkeypatch.setattr(overview, "_MAX_WORKERS", 3)
    idle = [SimpleNamespace(device="cpu", host=str(number)) for number in range(9)]
    pool = SimpleNamespace(idle=lambda: idle, startable=lambda: 5)

    async def scenario():
        for name in ("a", "b"):
            await jobs.start(name)
        leader = SimpleNamespace(scheduler=SimpleNamespace(followed=()))
        response = await overview.ClusterOverview(database, leader, pool).get(None)
        assert [(each.job, each.host) for each in response.workers] == [("jobs/a", ""), ("jobs/b", ""), ("", "0")]
        assert (response.busy_workers, response.idle_workers, response.startable_workers) == (2, 9, 5)

    asyncio.run(scenario())


class Pool:
    """A pool with room for GPU workers only if `gpus` says so."""

    def __init__(self, free, gpus=1):
        self.free = free.__getitem__
        self.capacity = {"cpu": 2, "gpu": gpus}.__getitem__

    def device_for(self, device):
        return "gpu" if device == Device.DEVICE_GPU else "cpu"


def queued(key, device="CPU", crashes=0):
    spec = JobSpec(device=Device.Value(f"DEVICE_{device}"))
    return SimpleNamespace(job_key=key, crashes=crashes, job=Job(name=f"jobs/{key}", spec=spec))


@pytest.mark.parametrize(
    ("jobs", "free", "options", "expected"),
    [
        ([queued(1), queued(2)], (2, 0), {}, ["it starts now"] * 2),
        ([queued(1), queued(2), queued(3)], (1, 0), {}, [
            "it starts now", "all CPU workers are busy", "all CPU workers are busy, 1 job before it",
        ]),
        ([queued(1), queued(2, "GPU"), queued(3, "GPU")], (0, 0), {}, [
            "all CPU workers are busy", "all GPU workers are busy", "all GPU workers are busy, 1 job before it",
        ]),
        ([queued(1, "GPU")], (0, 0), {"gpus": 0}, ["the cluster has no room for a GPU worker"]),
        ([queued(1), queued(2)], (0, 0), {"followed": {1}}, [
            "a worker is starting for it", "all CPU workers are busy",
        ]),
        ([queued(1, crashes=2), queued(2, crashes=2), queued(3)], (2, 0), {}, [
            "it starts now", "it may have crashed the server, so it runs when no other such job runs", "it starts now",
        ]),
        ([queued(1, crashes=2)], (2, 0), {"suspect_runs": True}, [
            "it may have crashed the server, so it runs when no other such job runs",
        ]),
    ],
)  # fmt: skip
def test_a_queued_job_says_why_it_waits(jobs, free, options, expected):
    pool = Pool(dict(zip(("cpu", "gpu"), free, strict=True)), options.get("gpus", 1))
    found = wait_reasons(jobs, pool, options.get("followed", ()), suspect_runs=options.get("suspect_runs", False))
    assert found == expected
