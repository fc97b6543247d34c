"""The policy that decides which jobs start next."""

import asyncio
from types import SimpleNamespace

from gradwire_proto.v1.spec_pb2 import Device
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.scheduling.loop import Scheduler
from gradwire_server.scheduling.policy import next_jobs, without_further_suspects
from gradwire_server.store.job_queries import JobRecord


def test_jobs_start_in_order_of_arrival_while_workers_are_free():
    queued = [("a", "cpu"), ("b", "cpu"), ("c", "gpu"), ("d", "cpu"), ("e", "gpu")]
    assert next_jobs(queued, {"cpu": 2, "gpu": 1}) == [("a", "cpu"), ("b", "cpu"), ("c", "gpu")]
    assert next_jobs(queued, {"cpu": 0, "gpu": 2}) == [("c", "gpu"), ("e", "gpu")]
    assert next_jobs([], {"cpu": 9, "gpu": 9}) == []


def test_suspects_run_one_at_a_time_while_other_jobs_run():
    queued = [(name, "cpu") for name in ("a", "bad 1", "b", "bad 2")]

    def names(*, suspect_runs):
        left = without_further_suspects(queued, lambda name: "bad" in name, suspect_runs=suspect_runs)
        return [name for name, _ in left]

    assert names(suspect_runs=False) == ["a", "bad 1", "b"]
    assert names(suspect_runs=True) == ["a", "b"]


def test_a_job_behind_many_that_cannot_start_starts_and_few_jobs_are_read_otherwise():
    """Jobs that need a GPU are first in the queue, and only CPU workers are free."""

    def record(key, device):
        job = Job(name=f"jobs/{key}", spec={"device": device})
        return JobRecord(key, str(key), classification=True, workers_lost=0, crashes=0, last_report=0, job=job)

    async def started(queue):
        read, chosen = [], []

        async def queued(limit, except_keys):
            read.append(limit)
            return [each for each in queue if each.job_key not in except_keys][:limit]

        async def run(job, kind):
            chosen.append((job.job_key, kind))
            await asyncio.Future()

        kinds = {Device.DEVICE_CPU: "cpu", Device.DEVICE_GPU: "gpu"}
        pool = SimpleNamespace(free=lambda kind: {"cpu": 2, "gpu": 0}[kind], device_for=kinds.get)
        scheduler = Scheduler(SimpleNamespace(queued=queued), pool, SimpleNamespace(run=run))
        await scheduler._run_round()
        await asyncio.sleep(0)
        await scheduler.close()
        return read, chosen

    gpu = [record(key, Device.DEVICE_GPU) for key in range(1, 40)]
    cpu = [record(key, Device.DEVICE_CPU) for key in range(40, 45)]
    assert asyncio.run(started(cpu)) == ([2], [(40, "cpu"), (41, "cpu")])
    assert asyncio.run(started(gpu + cpu)) == ([2, 100], [(40, "cpu"), (41, "cpu")])
    assert asyncio.run(started(cpu[:1])) == ([2], [(40, "cpu")])
