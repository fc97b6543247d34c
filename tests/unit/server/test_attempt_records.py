"""The changes that attempts make to a job and its log."""

import asyncio
import logging

import pytest
from server_parts import NOW

from gradwire_proto.v1.errors_pb2 import JobErrorReason, JobWarningReason
from gradwire_proto.v1.metrics_pb2 import Epoch, Metrics
from gradwire_proto.v1.spec_pb2 import JobSpec, KeepPolicy
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobState, StateChange
from gradwire_server.errors import ModelAlreadyExistsError
from gradwire_server.jobs.attempt_records import AttemptOverError, is_suspect
from gradwire_server.jobs.events import JobUpdater, has_ended
from gradwire_server.log_limit import MAX_REPEATS, RepeatLimit
from gradwire_server.principal import OPERATOR
from gradwire_server.store import model_queries


def epoch_event(number, loss=0.5, seconds=1.0):
    return Event(epoch=Epoch(epoch=number, running_loss=loss, train=Metrics(loss=loss), train_seconds=seconds))


def state_event(state):
    return Event(state_change=StateChange(state=state))


CHECKPOINT = Event(checkpoint=Checkpoint(epoch=3, weights=TensorRef(dtype=1, shape=[2], sha256="0" * 64)))


async def log(jobs, job_id="a"):
    """Return the events of a job, each as a string of the form "kind detail"."""
    return [detail(event) for event in await events_of(jobs, job_id)]


async def events_of(jobs, job_id="a"):
    last = (await jobs.queries.get(OPERATOR, f"jobs/{job_id}")).job.last_sequence
    events = []
    watch = jobs.queries.watch(OPERATOR, f"jobs/{job_id}", 0)
    while len(events) < last:
        events += await anext(watch)
    await watch.aclose()
    assert [event.sequence for event in events] == list(range(1, last + 1))
    return events


def detail(event):
    match event.WhichOneof("kind"):
        case "epoch":
            return f"epoch {event.epoch.epoch}"
        case "warning":
            return JobWarningReason.Name(event.warning.reason).removeprefix("JOB_WARNING_REASON_")
        case "state_change":
            return JobState.Name(event.state_change.state).removeprefix("JOB_STATE_")
        case kind:
            return kind


def test_a_job_that_succeeds_gets_its_model_with_its_labels(jobs):
    async def scenario():
        await jobs.create("a", labels={"team": "vision"}, architecture="2-1")
        record = await jobs.records.start_attempt(1)
        await jobs.records.record_reports(
            record.job_key, 1, [state_event(JobState.JOB_STATE_RUNNING), epoch_event(1)], 2
        )
        reports = [epoch_event(2), epoch_event(3), CHECKPOINT, state_event(JobState.JOB_STATE_SUCCEEDED)]
        done = (await jobs.records.record_reports(record.job_key, 1, reports, 6)).job
        assert has_ended(done)
        assert (done.model, done.last_epoch.epoch, done.last_sequence) == ("models/a", 3, 8)
        assert done.end_time.seconds == NOW

    asyncio.run(scenario())


def test_a_model_has_the_weights_of_the_last_run_of_its_epoch(jobs, database):
    def weights(digit):
        reference = TensorRef(dtype=1, shape=[2], sha256=64 * digit)
        return Event(checkpoint=Checkpoint(epoch=3, weights=reference))

    async def scenario():
        key = (await jobs.start()).job_key
        await jobs.records.record_reports(key, 1, [*map(epoch_event, (1, 2, 3)), weights("2")], 4)
        await jobs.records.worker_lost(key, 1, "gone", "")
        await jobs.records.start_attempt(key)
        await jobs.records.record_reports(key, 2, [epoch_event(3, loss=0.25), weights("1")], 2)
        await jobs.records.record_reports(key, 2, [state_event(JobState.JOB_STATE_SUCCEEDED)], 3)
        model = await database.read(lambda connection: model_queries.find_model(connection, "a"))
        assert model.weights.sha256 == 64 * "1"

    asyncio.run(scenario())


def test_a_new_job_cannot_take_the_name_of_the_model_of_a_deleted_job(jobs):
    async def scenario():
        record = await jobs.start()
        reports = [epoch_event(3), CHECKPOINT, state_event(JobState.JOB_STATE_SUCCEEDED)]
        await jobs.records.record_reports(record.job_key, 1, reports, 3)
        await jobs.commands.delete(OPERATOR, "jobs/a")
        with pytest.raises(ModelAlreadyExistsError, match="delete the model") as caught:
            await jobs.create("a")
        assert caught.value.metadata == {"model": "models/a"}

    asyncio.run(scenario())


def test_an_attempt_that_is_over_is_refused_and_stores_nothing(jobs):
    async def scenario():
        record = await jobs.start()
        await jobs.records.worker_lost(record.job_key, 1, "gone", "")
        await jobs.records.start_attempt(record.job_key)
        with pytest.raises(AttemptOverError):
            await jobs.records.record_reports(record.job_key, 1, [epoch_event(1)], 1)
        await jobs.records.record_reports(record.job_key, 2, [epoch_event(1)], 1)
        assert await log(jobs) == ["QUEUED", "STARTING", "WORKER_LOST", "QUEUED", "STARTING", "epoch 1"]

    asyncio.run(scenario())


def test_an_epoch_that_runs_again_is_stored_once_and_a_different_result_is_a_warning(jobs):
    async def scenario():
        record = await jobs.start()
        await jobs.records.record_reports(record.job_key, 1, [epoch_event(1), epoch_event(2)], 2)
        again = [epoch_event(1, seconds=9.0), epoch_event(2, loss=0.25), epoch_event(3)]
        await jobs.records.record_reports(record.job_key, 1, again, 5)
        assert (await log(jobs))[2:] == ["epoch 1", "epoch 2", "NOT_DETERMINISTIC", "epoch 3"]

    asyncio.run(scenario())


@pytest.mark.parametrize("changed", ["train", "test"])
def test_an_epoch_that_runs_again_with_other_metrics_is_a_warning(jobs, changed):
    async def scenario():
        record = await jobs.start()
        for accuracy, last_report in ((0.5, 1), (0.75, 2)):
            repeated = epoch_event(1)
            getattr(repeated.epoch, changed).accuracy = accuracy
            await jobs.records.record_reports(record.job_key, 1, [repeated], last_report)
        assert (await log(jobs))[2:] == ["epoch 1", "NOT_DETERMINISTIC"]

    asyncio.run(scenario())


def test_reports_that_are_already_stored_are_not_stored_again(jobs):
    async def scenario():
        record = await jobs.start()
        for _ in range(2):  # This happens after a crash between the commit and the acknowledgement.
            reports = [state_event(JobState.JOB_STATE_RUNNING), CHECKPOINT]
            await jobs.records.record_reports(record.job_key, 1, reports, 2)
        assert (await log(jobs))[2:] == ["RUNNING", "checkpoint"]
        await jobs.records.worker_lost(record.job_key, 1, "gone", "")
        await jobs.records.start_attempt(record.job_key)
        await jobs.records.record_reports(record.job_key, 2, [epoch_event(1)], 1)
        assert (await log(jobs))[-1] == "epoch 1", "the reports of the next attempt count from 1 again"

    asyncio.run(scenario())


def test_the_worker_of_a_cancelled_job_is_refused(jobs):
    async def scenario():
        record = await jobs.start()
        await jobs.records.current(record.job_key, 1)
        await jobs.commands.cancel(OPERATOR, "jobs/a")
        with pytest.raises(AttemptOverError):
            await jobs.records.record_reports(record.job_key, 1, [epoch_event(1)], 1)
        with pytest.raises(AttemptOverError):
            await jobs.records.current(record.job_key, 1)

    asyncio.run(scenario())


def test_a_job_whose_workers_keep_dying_fails_and_shows_the_log_of_the_last_one(jobs):
    async def scenario():
        record = await jobs.start()
        for attempt in (1, 2, 3):
            record = await jobs.records.worker_lost(record.job_key, attempt, "killed", "last words")
            if not has_ended(record.job):
                await jobs.records.start_attempt(record.job_key)
        assert record.job.state == JobState.JOB_STATE_FAILED
        assert record.job.error.reason == JobErrorReason.JOB_ERROR_REASON_WORKER_LOST
        assert "Its log ends with:\nlast words" in record.job.error.message

    asyncio.run(scenario())


def test_a_job_that_progresses_between_lost_workers_does_not_fail(jobs):
    async def scenario():
        record = await jobs.start()
        for attempt in range(1, 7):
            if attempt % 2:
                await jobs.records.record_reports(record.job_key, attempt, [epoch_event(attempt)], 1)
            record = await jobs.records.worker_lost(record.job_key, attempt, "killed", "")
            assert not has_ended(record.job)
            await jobs.records.start_attempt(record.job_key)

    asyncio.run(scenario())


def test_the_disk_usage_of_a_job_counts_its_events_and_at_most_two_checkpoints(jobs):
    async def scenario():
        record = await jobs.start()
        before = (await jobs.queries.get(OPERATOR, "jobs/a")).job.disk_usage.log_bytes
        sizes = []
        for epoch in (1, 2, 3):
            point = Event(checkpoint=Checkpoint(epoch=epoch, weights=CHECKPOINT.checkpoint.weights))
            record = await jobs.records.record_reports(record.job_key, 1, [epoch_event(epoch), point], 2 * epoch)
            sizes.append(record.job.disk_usage.checkpoint_bytes)
        assert sizes == [8, 16, 16]  # Each checkpoint contains two float32 numbers.
        assert record.job.disk_usage.log_bytes > before
        done = [state_event(JobState.JOB_STATE_SUCCEEDED)]
        record = await jobs.records.record_reports(record.job_key, 1, done, 7)
        assert record.job.disk_usage.checkpoint_bytes == 0

    asyncio.run(scenario())


def test_the_log_bytes_of_a_job_are_the_sum_over_the_events_of_all_attempts(jobs):
    async def scenario():
        record = await jobs.start()
        for attempt in (1, 2):
            await jobs.records.record_reports(record.job_key, attempt, [epoch_event(attempt), CHECKPOINT], 2)
            await jobs.records.worker_lost(record.job_key, attempt, "killed", "")
            await jobs.records.start_attempt(record.job_key)
        stored = (await jobs.queries.get(OPERATOR, "jobs/a")).job
        assert stored.attempt == 3
        assert stored.disk_usage.log_bytes == sum(event.ByteSize() for event in await events_of(jobs))

    asyncio.run(scenario())


def test_the_start_time_of_a_job_is_that_of_its_first_attempt():
    job = Job()
    for second, state in enumerate([JobState.JOB_STATE_QUEUED, JobState.JOB_STATE_STARTING] * 3):
        event = state_event(state)
        event.time.FromSeconds(NOW + second)
        JobUpdater(job).apply(event)
    assert job.start_time.seconds == NOW + 1


def test_a_server_that_starts_puts_active_jobs_back_into_the_queue_in_order(jobs):
    async def scenario():
        for job_id in ("a", "b", "c", "d"):
            await jobs.start(job_id)
        await jobs.commands.cancel(OPERATOR, "jobs/b")
        await jobs.records.requeue_active(except_keys=[4])
        assert [record.job_id for record in await jobs.records.queued(10)] == ["a", "c"]
        assert (await log(jobs))[-2:] == ["SERVER_RESTARTED", "QUEUED"]

    asyncio.run(scenario())


async def crash(jobs, key=1):
    """Start the next attempt of a queued job, and then let the server crash."""
    await jobs.records.start_attempt(key)
    await jobs.records.requeue_active(except_keys=[], after_crash=True)
    return (await jobs.records.queued(1) or [None])[0]


def test_a_job_that_is_running_at_three_crashes_without_a_new_epoch_fails(jobs):
    async def scenario():
        await jobs.create("a")
        assert not is_suspect(await crash(jobs))
        assert await jobs.records.suspects([1, 2]) == set()
        assert is_suspect(await crash(jobs))
        assert await jobs.records.suspects([1, 2]) == {1}
        assert await crash(jobs) is None
        job = (await jobs.queries.get(OPERATOR, "jobs/a")).job
        assert job.state == JobState.JOB_STATE_FAILED
        assert job.error.reason == JobErrorReason.JOB_ERROR_REASON_SERVER_CRASHED
        assert job.error.message.startswith("the server crashed 3 times while it ran this job")

    asyncio.run(scenario())


def test_new_epochs_clear_a_job_of_suspicion_and_repeated_ones_do_not(jobs):
    async def scenario():
        await jobs.create("a", spec=JobSpec(epochs=9))
        await jobs.records.start_attempt(1)
        await jobs.records.record_reports(1, 1, [epoch_event(1)], 1)
        await jobs.records.requeue_active(except_keys=[], after_crash=True)
        await jobs.records.start_attempt(1)
        await jobs.records.record_reports(1, 2, [epoch_event(1)], 1)
        await jobs.records.requeue_active(except_keys=[], after_crash=True)
        assert await jobs.records.suspects([1]) == {1}
        await jobs.records.start_attempt(1)
        await jobs.records.record_reports(1, 3, [epoch_event(2)], 1)
        assert await jobs.records.suspects([1]) == set()

    asyncio.run(scenario())


def test_clean_shutdowns_do_not_count_as_crashes(jobs):
    async def scenario():
        await jobs.create("a")
        for _ in range(5):
            await jobs.records.start_attempt(1)
            await jobs.records.requeue_active(except_keys=[])
        (record,) = await jobs.records.queued(1)
        assert record.crashes == 0

    asyncio.run(scenario())


def test_the_log_has_a_line_for_each_change_of_a_job_with_its_reason(jobs, caplog):
    caplog.set_level(logging.INFO)
    running = StateChange(state=JobState.JOB_STATE_RUNNING)
    running.execution.plan, running.execution.device, running.execution.host = "compiled", "cpu", "node-1, a CPU"

    async def scenario():
        await jobs.create("failing", epochs=3)
        (queued,) = await jobs.records.queued(1)
        failing = await jobs.records.start_attempt(queued.job_key)
        await jobs.records.record_reports(failing.job_key, 1, [Event(state_change=running), epoch_event(1)], 2)
        reason = JobErrorReason.JOB_ERROR_REASON_WORKER_ERROR
        await jobs.records.fail(failing.job_key, 1, reason, "the worker failed\nwith a long log")
        await jobs.commands.delete(OPERATOR, "jobs/failing")
        await jobs.create("b", labels={"team": "secret"}, epochs=3)
        await jobs.commands.pause(OPERATOR, "jobs/b")
        await jobs.commands.pause(OPERATOR, "jobs/b")
        await jobs.commands.cancel(OPERATOR, "jobs/b")

    asyncio.run(scenario())
    lines = [record for record in caplog.records if record.name.startswith("gradwire_server.jobs")]
    assert [line.getMessage() for line in lines] == [
        "jobs/failing: QUEUED",
        "jobs/failing: STARTING, attempt 1",
        "jobs/failing: RUNNING, attempt 1, plan compiled on node-1, a CPU (cpu)",
        "jobs/failing: FAILED, after 1 of 3 epochs, WORKER_ERROR, the worker failed",
        "jobs/failing: deleted",
        "jobs/b: QUEUED",
        "jobs/b: PAUSED, on request",
        "jobs/b: CANCELLED, after 0 of 3 epochs, on request",
    ]
    assert [line.levelname for line in lines if line.levelno > logging.INFO] == ["WARNING"]


def test_the_start_and_the_end_of_every_job_are_in_the_limited_log(jobs, caplog):
    caplog.set_level(logging.INFO)
    names = [f"jobs/job-{number}" for number in range(MAX_REPEATS + 5)]

    async def scenario():
        for name in names:
            await jobs.create(name.removeprefix("jobs/"))
            await jobs.commands.cancel(OPERATOR, name)

    caplog.handler.addFilter(limit := RepeatLimit())
    try:
        asyncio.run(scenario())
    finally:
        caplog.handler.removeFilter(limit)
    for name in names:
        assert [text.split(",")[0] for text in caplog.messages if text.startswith(f"{name}:")] == [
            f"{name}: QUEUED",
            f"{name}: CANCELLED",
        ]


def test_the_checkpoints_of_a_job_are_its_kept_epochs_and_at_most_two_others():
    spec = JobSpec(epochs=9, dtype=1, keep=KeepPolicy(best=True, every=4))
    spec.model.layers.add().linear.in_features = 1
    spec.model.layers[0].linear.out_features = 2
    job = Job(spec=spec, epochs=9)
    updater = JobUpdater(job)

    def kept_after(epoch, loss):
        event = Event()
        event.epoch.epoch, event.epoch.train.loss = epoch, loss
        updater.apply(event)
        checkpoint = Event()
        checkpoint.checkpoint.epoch = epoch
        checkpoint.checkpoint.weights.dtype, checkpoint.checkpoint.weights.sha256 = 1, 64 * "a"
        checkpoint.checkpoint.weights.shape.append(4)
        updater.apply(checkpoint)
        return list(job.kept_epochs), job.disk_usage.checkpoint_bytes // 16

    losses = [0.9, 0.5, 0.7, 0.6, 0.4, 0.8, 0.8, 0.8]
    assert [kept_after(epoch, loss) for epoch, loss in enumerate(losses, start=1)] == [
        ([1], 1),
        ([2], 2),
        ([2], 3),
        ([2, 4], 4),
        ([4, 5], 4),
        ([4, 5], 4),
        ([4, 5], 4),
        ([4, 5, 8], 5),
    ]
    done = Event()
    done.state_change.state, done.state_change.model = JobState.JOB_STATE_SUCCEEDED, "models/x"
    updater.apply(done)
    assert (list(job.kept_epochs), job.disk_usage.checkpoint_bytes) == ([4, 5, 8], 2 * 16)
