"""The life of a job: states, attempts, and its log."""

import asyncio

import pytest

from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import (
    Checkpoint,
    Epoch,
    Event,
    JobState,
    Metrics,
    StateChange,
)
from gradwire_server.errors import ServiceError
from gradwire_server.jobs.commands import AttemptOverError, Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.scheduling.lease import Lease
from gradwire_server.store.notifications import Change


@pytest.fixture
def lease(database):
    held = Lease(database)
    assert asyncio.run(held.try_take())
    return held


@pytest.fixture
def jobs(database, lease):
    return Jobs(database, Changes(), lease, clock=lambda: 1_700_000_000 * 10**9)


SPEC = JobSpec(epochs=3)


def epoch_event(number, loss=0.5, seconds=1.0):
    return Event(epoch=Epoch(epoch=number, running_loss=loss, train=Metrics(loss=loss), train_seconds=seconds))


def state_event(state):
    return Event(state_change=StateChange(state=state))


CHECKPOINT = Event(checkpoint=Checkpoint(epoch=3, weights=TensorRef(dtype=1, shape=[2], sha256="0" * 64)))


async def started(jobs, name="a"):
    await jobs.create(SPEC, True, name, "")
    return await jobs.start_attempt((await jobs.find(f"jobs/{name}")).id)


async def log(jobs, number):
    events = await jobs.events_after(number, 0, 1000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return [
        f"{event.WhichOneof('kind')} {event.epoch.epoch or event.warning.reason or event.state_change.state}"
        for event in events
    ]


def test_a_job_goes_from_queued_to_succeeded_with_a_model(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_RUNNING), epoch_event(1)], 2)
        done = await jobs.record(
            row.id, 1, [epoch_event(2), epoch_event(3), CHECKPOINT, state_event(JobState.JOB_STATE_SUCCEEDED)], 6
        )
        assert done.ended
        assert (done.message.model, done.message.last_epoch.epoch, done.message.last_sequence) == ("models/a", 3, 8)
        assert done.message.end_time.seconds == 1_700_000_000

    asyncio.run(scenario())


def test_the_same_request_makes_one_job_and_a_taken_name_is_refused(jobs):
    async def scenario():
        first = await jobs.create(SPEC, True, "a", "request-1")
        assert await jobs.create(SPEC, True, "a", "request-1") == first
        assert await jobs.find_request("request-1") == first
        with pytest.raises(ServiceError, match="'jobs/a' already"):
            await jobs.create(SPEC, True, "a", "request-2")
        names = {(await jobs.create(SPEC, True, "", "")).name for _ in range(20)}
        assert len(names) == 20

    asyncio.run(scenario())


def test_an_old_attempt_is_refused_and_stores_nothing(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.worker_lost(row.id, 1, "gone", "")
        await jobs.start_attempt(row.id)
        with pytest.raises(AttemptOverError):
            await jobs.record(row.id, 1, [epoch_event(1)], 1)
        await jobs.record(row.id, 2, [epoch_event(1)], 1)
        assert await log(jobs, row.id) == [
            "state_change 1",
            "state_change 2",
            "warning WORKER_LOST",
            "state_change 1",
            "state_change 2",
            "epoch 1",
        ]

    asyncio.run(scenario())


def test_an_epoch_that_is_run_again_is_stored_once_and_a_different_outcome_is_reported(jobs):
    async def scenario():
        row = await started(jobs)
        await jobs.record(row.id, 1, [epoch_event(1), epoch_event(2)], 2)
        await jobs.record(row.id, 1, [epoch_event(1, seconds=9.0), epoch_event(2, loss=0.25), epoch_event(3)], 5)
        assert (await log(jobs, row.id))[2:] == ["epoch 1", "epoch 2", "warning NOT_DETERMINISTIC", "epoch 3"]

    asyncio.run(scenario())


def test_reports_that_are_stored_already_are_not_stored_again(jobs):
    async def scenario():
        row = await started(jobs)
        for _ in range(2):  # As after a crash between the commit and the acknowledgement.
            await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_RUNNING), CHECKPOINT], 2)
        assert (await log(jobs, row.id))[2:] == ["state_change 3", "checkpoint 0"]

    asyncio.run(scenario())


def test_cancelling_ends_a_job_once_and_refuses_its_worker(jobs):
    async def scenario():
        row = await started(jobs)
        first = await jobs.cancel("jobs/a")
        again = await jobs.cancel("jobs/a")
        assert first.message == again.message
        assert first.message.state == JobState.JOB_STATE_CANCELLED
        with pytest.raises(AttemptOverError):
            await jobs.record(row.id, 1, [epoch_event(1)], 1)

    asyncio.run(scenario())


def test_a_job_that_kills_its_workers_is_given_up(jobs):
    async def scenario():
        row = await started(jobs)
        for attempt in (1, 2, 3):
            row = await jobs.worker_lost(row.id, attempt, "killed", "last words")
            if not row.ended:
                await jobs.start_attempt(row.id)
        assert row.message.state == JobState.JOB_STATE_FAILED
        assert row.message.error.reason == "WORKER_LOST"
        assert "its log ends with:\nlast words" in row.message.error.message

    asyncio.run(scenario())


def test_a_job_that_gets_on_between_deaths_is_not_given_up(jobs):
    async def scenario():
        row = await started(jobs)
        for attempt in range(1, 7):
            if attempt % 2:
                await jobs.record(row.id, attempt, [epoch_event(attempt)], 1)
            row = await jobs.worker_lost(row.id, attempt, "killed", "")
            assert not row.ended
            await jobs.start_attempt(row.id)

    asyncio.run(scenario())


def test_what_a_job_takes_of_the_disk_is_counted_and_bounded(jobs):
    async def scenario():
        row = await started(jobs)
        before = (await jobs.find("jobs/a")).message.disk_usage.log_bytes
        sizes = []
        for epoch in (1, 2, 3):
            point = Event(checkpoint=Checkpoint(epoch=epoch, weights=CHECKPOINT.checkpoint.weights))
            row = await jobs.record(row.id, 1, [epoch_event(epoch), point], 2 * epoch)
            sizes.append(row.message.disk_usage.checkpoint_bytes)
        assert sizes == [8, 16, 16]  # Two float32 in each, and two checkpoints at most.
        assert row.message.disk_usage.log_bytes > before
        row = await jobs.record(row.id, 1, [state_event(JobState.JOB_STATE_SUCCEEDED)], 7)
        assert row.message.disk_usage.checkpoint_bytes == 0

    asyncio.run(scenario())


def test_a_server_that_starts_puts_unfinished_jobs_back_into_the_queue_in_order(jobs):
    async def scenario():
        for name in ("a", "b", "c"):
            await started(jobs, name)
        await jobs.cancel("jobs/b")
        await jobs.requeue_unfinished(but=[])
        assert [row.job_id for row in await jobs.queued(10)] == ["a", "c"]

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["jobs/none", "none", "models/a", ""])
def test_unknown_names_are_not_found(jobs, name):
    with pytest.raises(ServiceError, match="there is no"):
        asyncio.run(jobs.find(name))


def test_a_sequence_number_from_the_future_is_refused(jobs):
    async def scenario():
        await jobs.create(SPEC, True, "a", "")
        await jobs.check_sequence("jobs/a", 1)
        for after in (2, -1):
            with pytest.raises(ServiceError, match=r"must be 0\.\.1"):
                await jobs.check_sequence("jobs/a", after)

    asyncio.run(scenario())


def test_a_watcher_that_takes_the_signal_first_misses_nothing():
    async def scenario():
        watchers = Changes()
        signal = watchers.signal(1)
        watchers.hear(Change(1))
        await asyncio.wait_for(signal.wait(), 1)
        assert not watchers.signal(1).is_set()
        assert not watchers.signal(2).is_set()

    asyncio.run(scenario())
