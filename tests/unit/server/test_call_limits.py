"""The limits of calls, with clients that delay their requests."""

import asyncio

import pytest

from gradwire_proto.v1 import model_service_pb2, tensor_service_pb2, training_service_pb2
from gradwire_server.api.call_end import close_later
from gradwire_server.api.call_limits import CallCount, RequestReader, Turns, read_next, write
from gradwire_server.errors import ServerBusyError, TooSlowError
from gradwire_server.limits import DEFAULT_LIMITS, METHOD_LIMITS


class Call:
    """The context of a call whose client sends its request when told to, and accepts no response."""

    def __init__(self):
        self.request = asyncio.get_running_loop().create_future()

    async def read(self):
        return await self.request

    async def write(self, _response):
        await asyncio.get_running_loop().create_future()


def test_a_call_beyond_the_maximum_is_refused_and_an_ended_call_makes_room():
    count = CallCount(2)
    with count.call(), count.call(), pytest.raises(ServerBusyError, match="2 calls"), count.call():
        pass
    with count.call():
        pass


def test_long_responses_that_clients_have_not_received_are_limited():
    count = CallCount(2000, max_bytes=1_000_000)
    with count.response(600_000), count.response(400_000):
        with pytest.raises(ServerBusyError, match="long responses"), count.response(100_000):
            pass
        with count.response(1000):
            pass
    with count.response(1_000_000):
        pass


def test_a_call_waits_for_its_turn_and_is_refused_if_that_takes_too_long(monkeypatch):
    async def scenario():
        turns = Turns("Predict", 1)
        with await turns.turn():
            waiting = asyncio.create_task(hold(turns))
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        monkeypatch.setattr("gradwire_server.api.call_limits.MAX_WAIT_SECONDS", 0.01)
        with await turns.turn(), pytest.raises(ServerBusyError, match="1 calls of Predict"):
            await hold(turns)
        await hold(turns)

    async def hold(turns):
        with await turns.turn():
            pass

    asyncio.run(scenario())


def test_a_request_and_a_chunk_that_do_not_arrive_and_a_response_that_is_not_accepted_end_the_call():
    async def scenario():
        for waiting in (
            RequestReader(8, 0.1).read(Call(), 0.01),
            read_next(Call(), 0.01),
            write(Call(), object(), 0.01),
        ):
            with pytest.raises(TooSlowError):
                await waiting

    asyncio.run(scenario())


def test_only_some_requests_can_arrive_slowly():
    async def scenario():
        reader = RequestReader(max_slow=3, slow_seconds=0.01)
        calls = [Call() for _ in range(10)]
        reads = [asyncio.create_task(reader.read(call, 60)) for call in calls]
        outcomes = await asyncio.gather(*reads[:7], return_exceptions=True)
        assert all(isinstance(outcome, TooSlowError) for outcome in outcomes)
        for call in calls[7:]:
            call.request.set_result(b"late")
        assert await asyncio.gather(*reads[7:]) == 3 * [b"late"]

    asyncio.run(scenario())


def test_any_number_of_requests_can_arrive_at_once():
    async def scenario():
        reader = RequestReader(max_slow=3, slow_seconds=60)
        calls = [Call() for _ in range(100)]
        reads = [asyncio.create_task(reader.read(call, 60)) for call in calls]
        await asyncio.sleep(0)
        for call in calls:
            call.request.set_result(b"at once")
        assert await asyncio.gather(*reads) == 100 * [b"at once"]

    asyncio.run(scenario())


def test_a_function_that_no_grpc_call_runs_ends_at_once():
    async def scenario():
        ended = []
        close_later(60, lambda: ended.append(True))
        assert ended

    asyncio.run(scenario())


def test_every_download_has_a_limit_of_calls_and_of_the_time_that_its_client_takes():
    services = [
        service
        for file in (model_service_pb2, tensor_service_pb2, training_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    downloads = {
        method.name
        for service in services
        for method in service.methods
        if method.server_streaming and "chunk" in method.output_type.fields_by_name
    }
    assert downloads == {"DownloadModel", "DownloadCheckpoint"}
    for name in downloads:
        limits = METHOD_LIMITS.get(name, DEFAULT_LIMITS)
        assert (limits.concurrent_calls, limits.write_seconds) == (32, 60)
