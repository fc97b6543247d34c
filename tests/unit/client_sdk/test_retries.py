"""Which calls are retried, after which errors, how many times and with which delays."""

import asyncio
import threading

import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode as Code
from scripted_server import status

import gradwire as gw
from gradwire._access import Access
from gradwire._transport import Transport
from gradwire_proto.v1.training_service_pb2 import DeleteJobRequest

FULL = status(Code.RESOURCE_EXHAUSTED, "the disk is full", reason="DISK_FULL", retry_after=7)
STORE = status(Code.UNAVAILABLE, "the database does not respond", reason="STORE_UNAVAILABLE", retry_after=3)
AWAY = status(Code.UNAVAILABLE, "connection refused")


def deletes(scripted, answers, max_retries=6):
    """Delete a job on a server that returns these answers in turn, and return the delays between the calls."""
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    remaining = iter(answers)
    scripted.answer("DeleteJob", lambda request: next(remaining))

    async def run():
        transport = Transport(scripted.address, Access(), max_retries=max_retries, sleep=sleep)
        try:
            await transport.call(transport.training.DeleteJob, DeleteJobRequest(name="jobs/x"))
        finally:
            await transport.close()

    try:
        asyncio.run(run())
    except gw.GradwireError as error:
        error.waits = waits
        raise
    return waits


def test_calls_to_an_unavailable_server_are_retried_until_it_answers(scripted):
    assert deletes(scripted, [AWAY, AWAY, AWAY, Empty()]) == [0.1, 0.25, pytest.approx(0.625)]


def test_the_retry_delay_that_a_server_gives_is_respected(scripted):
    assert deletes(scripted, [FULL, STORE, FULL, Empty()]) == [7, 3, 7]


@pytest.mark.parametrize(("answer", "kind"), [(FULL, gw.ResourceExhaustedError), (STORE, gw.UnavailableError)])
def test_after_the_last_retry_the_servers_own_message_is_raised(scripted, answer, kind):
    with pytest.raises(kind, match=answer.message) as caught:
        deletes(scripted, [answer] * 3, max_retries=2)
    assert len(caught.value.waits) == 2
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        status(Code.INTERNAL, "a defect", reason="INTERNAL"),
        status(Code.NOT_FOUND, "no job 'x'", reason="JOB_NOT_FOUND"),
        status(Code.DEADLINE_EXCEEDED, "late"),
        status(Code.RESOURCE_EXHAUSTED, "the message is too large"),
        status(Code.RESOURCE_EXHAUSTED, "come back tomorrow", reason="DISK_FULL", retry_after=86_400),
    ],
)
def test_other_errors_are_raised_immediately(scripted, answer):
    with pytest.raises(gw.GradwireError) as caught:
        deletes(scripted, [answer] * 9)
    assert caught.value.waits == []


def test_a_client_that_must_not_retry_does_not(scripted):
    scripted.answer("DeleteJob", lambda request: STORE)
    with gw.Client(scripted.address, max_retries=0) as client, pytest.raises(gw.UnavailableError, match="database"):
        client.jobs.delete("x")
    assert len(scripted.requests) == 1


def test_a_call_ends_after_the_timeout(scripted):
    answered = threading.Event()

    def hang(request):
        answered.wait(20)
        return Empty()

    scripted.answer("DeleteJob", hang)
    with gw.Client(scripted.address, timeout=0.2) as client, pytest.raises(gw.DeadlineExceededError, match="timeout="):
        client.jobs.delete("x")
    answered.set()
