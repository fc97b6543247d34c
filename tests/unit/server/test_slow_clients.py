"""Clients that send requests but do not receive the responses, over real sockets."""

import asyncio
import logging
from functools import partial
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server_without_ray import serving
from stalled_client import HEADERS, RST_STREAM, StalledClient

from gradwire_proto.v1.training_service_pb2 import Event, GetJobRequest, Job, JobWarning, WatchJobRequest
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub
from gradwire_server.api import interceptor
from gradwire_server.api.call_limits import CallCount
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.limits import METHOD_LIMITS, MethodLimits

TRAINING = "/gradwire.v1.TrainingService/"
SECONDS = 30


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, SECONDS))


@pytest.fixture(autouse=True)
def _large_job(monkeypatch):
    """Make every job 1 MB large, and give it an event of 1 MB."""

    async def get(_queries, _principal, name):
        return SimpleNamespace(job=Job(name=name, architecture="x" * 1_000_000))

    async def watch(_queries, _principal, _name, _after):
        yield [Event(warning=JobWarning(message="x" * 1_000_000))]

    monkeypatch.setattr(JobQueries, "get", get)
    monkeypatch.setattr(JobQueries, "watch", watch)


@pytest.mark.parametrize("stalled", ["GetJob", "WatchJob"])
def test_a_call_holds_its_turn_until_its_client_has_received_the_response_or_was_too_slow(
    tmp_path, monkeypatch, stalled, caplog
):
    monkeypatch.setitem(METHOD_LIMITS, stalled, MethodLimits(write_seconds=0.5, concurrent_calls=1))
    monkeypatch.setattr(interceptor, "STATUS_SECONDS", 0.1)

    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            training = TrainingServiceStub(channel)
            client = await StalledClient.connect(running.address)
            request = (GetJobRequest if stalled == "GetJob" else WatchJobRequest)(name="jobs/a")
            unread = [client.call(f"{TRAINING}{stalled}", request) for _ in range(2)]
            await client.received(HEADERS, unread[0])
            # This call gets its turn when the server has closed the other ones.
            if stalled == "GetJob":
                assert len((await training.GetJob(request)).architecture) == 1_000_000
            else:
                assert [len(each.events) async for each in training.WatchJob(request)] == [1]
            for stream in unread:
                await client.received(RST_STREAM, stream)
            client.close()

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert not caplog.records


@pytest.mark.parametrize("stalled", ["TrainingService/GetJob", "TensorService/UploadTensor"])
def test_a_call_whose_request_does_not_arrive_ends_and_gives_its_turn_to_another(tmp_path, monkeypatch, stalled):
    limits = MethodLimits(read_seconds=0.3, concurrent_calls=1)
    monkeypatch.setitem(METHOD_LIMITS, stalled.partition("/")[2], limits)

    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            client = await StalledClient.connect(running.address)
            silent = [client.call(f"/gradwire.v1.{stalled}") for _ in range(2)]
            # The request of this call arrives. It is empty, which an upload does not allow.
            call = channel.stream_unary(f"/gradwire.v1.{stalled}")
            if stalled.endswith("GetJob"):
                assert await error_of(call(iter([b""]))) is None
            else:
                assert (await error_of(call(iter([b""])))).code() is grpc.StatusCode.INVALID_ARGUMENT
            for stream in silent:
                await client.received(HEADERS, stream)
            client.close()

    run(scenario())


def test_long_responses_that_nobody_receives_use_a_limited_amount_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(interceptor, "CallCount", partial(CallCount, max_bytes=3_500_000))

    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            client = await StalledClient.connect(running.address)
            for _ in range(3):
                client.call(f"{TRAINING}GetJob", GetJobRequest(name="jobs/a"))
            training = TrainingServiceStub(channel)
            while (refused := await error_of(training.GetJob(GetJobRequest(name="jobs/a")))) is None:
                pass
            assert refused.code() is grpc.StatusCode.UNAVAILABLE
            assert "long responses" in refused.details()
            client.close()
            while await error_of(training.GetJob(GetJobRequest(name="jobs/a"))) is not None:
                pass

    run(scenario())


async def first_answer(call):
    await call.read()
    call.cancel()


async def error_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


def test_health_checks_are_answered_whatever_other_public_calls_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(interceptor, "MAX_CONCURRENT_HEALTH_WATCHES", 2)
    monkeypatch.setattr(interceptor, "MAX_CONCURRENT_REFLECTIONS", 2)

    async def scenario():
        async with serving(tmp_path, token="secret") as running, grpc.aio.insecure_channel(running.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            watches = [health.Watch(request) for _ in range(2)]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await health.Watch(request).read()
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            reflections = [reflect() for _ in range(2)]
            for reflection in reflections:
                await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                await reflection.read()
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await reflect().read()
            assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
            for call in (*watches, *reflections):
                call.cancel()
            # The places of calls that have ended are free again.
            while (await error_of(first_answer(health.Watch(request)))) is not None:
                pass

    run(scenario())


def test_a_compressed_request_is_refused(tmp_path):
    async def scenario():
        async with serving(tmp_path) as running, grpc.aio.insecure_channel(running.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            refused = await error_of(health.Check(health_pb2.HealthCheckRequest(), compression=grpc.Compression.Gzip))
            assert refused.code() is grpc.StatusCode.UNIMPLEMENTED

    run(scenario())
