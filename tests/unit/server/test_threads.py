"""The threads of client calls: a cancelled call leaves no work behind, and the server's own work uses other threads."""

import asyncio
import threading

import pytest

from gradwire_server import threads
from gradwire_server.threads import close_threads, in_thread


@pytest.fixture(autouse=True)
def _closed():
    yield
    close_threads()


async def block_all_threads(gate):
    """Occupy all threads until the gate is set, and return the calls that do."""
    running = threading.Semaphore(0)

    def wait():
        running.release()
        gate.wait(30)

    calls = [asyncio.create_task(in_thread(wait)) for _ in range(threads._THREADS)]
    for _ in calls:
        await asyncio.to_thread(running.acquire)
    return calls


def test_work_of_a_call_that_is_cancelled_while_it_waits_never_runs():
    async def scenario():
        gate, ran = threading.Event(), []
        busy = await block_all_threads(gate)
        waiting = [asyncio.create_task(in_thread(ran.append, number)) for number in range(100)]
        await asyncio.sleep(0)
        for call in waiting[:99]:
            call.cancel()
        await asyncio.wait(waiting[:99])
        gate.set()
        await asyncio.gather(*busy, waiting[99])
        assert ran == [99]

    asyncio.run(scenario())


def test_a_cancelled_call_ends_only_when_its_thread_is_free():
    async def scenario():
        gate = threading.Event()
        call, *others = await block_all_threads(gate)
        call.cancel()
        ended, _ = await asyncio.wait([call], timeout=0.05)
        assert not ended
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.gather(*others)

    asyncio.run(scenario())


def test_calls_cannot_delay_the_servers_own_work():
    async def scenario():
        gate = threading.Event()
        busy = await block_all_threads(gate)
        for _ in range(100):
            busy.append(asyncio.create_task(in_thread(gate.wait, 30)))
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "done") == "done"
        gate.set()
        await asyncio.gather(*busy)

    asyncio.run(scenario())
