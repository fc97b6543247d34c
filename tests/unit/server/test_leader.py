"""What a server does with the jobs of its predecessor, and what it leaves to its successor."""

import asyncio
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock, call

import pytest
from server_parts import open_jobs

from gradwire_server.app import Server, run_server
from gradwire_server.scheduling.leader import Leader
from gradwire_server.scheduling.lease import Lease
from gradwire_server.workers.handle import WorkerLostError
from gradwire_server.workers.ray_cluster import ClusterLostError


@pytest.mark.parametrize("orderly", [True, False])
def test_jobs_that_were_running_when_a_server_crashed_are_counted(database, orderly):
    async def scenario():
        first, second = Lease(database), Lease(database)
        await first.try_acquire()
        await open_jobs(database, first).start("a")
        if orderly:
            await first.mark_orderly()
        await second.try_acquire()
        records = open_jobs(database, second).records
        pool = SimpleNamespace(adopt_workers=AsyncMock(return_value={}))
        leader = Leader(second, records, pool, None, None, leave_workers=False, new_attempts=None)
        await leader._take_over(None)
        (record,) = await records.queued(10)
        assert record.crashes == (0 if orderly else 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("orderly", [True, False])
def test_losing_ray_is_not_a_clean_shutdown(orderly):
    async def scenario():
        stopped, ready = asyncio.Event(), asyncio.Event()
        lost = asyncio.get_running_loop().create_future()
        ready.set()
        lease = SimpleNamespace(mark_orderly=AsyncMock())

        def end(_address, _url):
            stopped.set() if orderly else lost.set_exception(ClusterLostError("lost"))

        async def forever():
            await asyncio.Future()

        async def watch():
            await lost

        server = Server(
            database=Mock(),
            cluster=SimpleNamespace(watch=watch),
            notifier=Mock(),
            leader=SimpleNamespace(run=forever, ready=ready, lease=lease),
            grpc_server=AsyncMock(),
            health=AsyncMock(),
            address="",
            http=None,
        )
        if orderly:
            await run_server(server, stopped, end)
        else:
            with pytest.raises(ClusterLostError):
                await run_server(server, stopped, end)
        assert lease.mark_orderly.await_count == (1 if orderly else 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [None, WorkerLostError("gone"), TimeoutError()])
def test_the_worker_of_a_job_that_ended_in_the_meantime_is_stopped_and_free_again(database, trouble):
    async def scenario():
        lease = Lease(database)
        await lease.try_acquire()
        worker = SimpleNamespace(stop=AsyncMock(side_effect=trouble))
        adopted = AsyncMock(return_value={("jobs/cancelled", 3): worker})
        pool = SimpleNamespace(adopt_workers=adopted, release=Mock(), discard=Mock())
        leader = Leader(lease, open_jobs(database, lease).records, pool, None, None, False, None)
        await leader._take_over(None)
        worker.stop.assert_awaited_once_with("jobs/cancelled", 3)
        assert pool.release.mock_calls == ([] if trouble else [call(worker)])
        assert pool.discard.mock_calls == ([call(worker)] if trouble else [])

    asyncio.run(scenario())
