"""What happens to the job and the worker when an attempt ends. The tests control the worker."""

import asyncio
import hashlib

import pytest
from server_parts import blocked_writes, open_jobs

from gradwire_engine.stopping import Progress
from gradwire_proto.v1.errors_pb2 import JobWarningReason
from gradwire_proto.v1.metrics_pb2 import Epoch, Metrics
from gradwire_proto.v1.spec_pb2 import EarlyStopping, JobSpec, KeepPolicy
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState, StateChange
from gradwire_server.errors import DiskFullError, StoreUnavailableError
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.attempt import Attempts
from gradwire_server.scheduling.lease import Lease
from gradwire_server.scheduling.loop import Scheduler
from gradwire_server.storage import disk_space as disk_space_module
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.store.job_queries import find_job_by_key
from gradwire_server.store.notifications import JobChange
from gradwire_server.workers.handle import WorkerLostError
from gradwire_worker.messages import Report, ResumePoint

WEIGHTS = b"12345678"
FINAL = Checkpoint(
    epoch=2, weights=TensorRef(dtype=DataType.DATA_TYPE_FLOAT32, shape=[2], sha256=hashlib.sha256(WEIGHTS).hexdigest())
)
WHOLE_JOB = [
    (Event(state_change=StateChange(state=JobState.JOB_STATE_RUNNING)), None),
    (Event(epoch=Epoch(epoch=1)), None),
    (Event(epoch=Epoch(epoch=2)), None),
    (Event(checkpoint=FINAL), WEIGHTS),
    (Event(state_change=StateChange(state=JobState.JOB_STATE_SUCCEEDED)), None),
]


class Worker:
    """A worker that immediately reports `events`, and then raises `error`, or waits if there is no error."""

    name, device = "worker", "cpu"

    def __init__(self, events=(), error=None):
        self.reports = [
            Report(number, event.SerializeToString(), weights) for number, (event, weights) in enumerate(events, 1)
        ]
        self.error = error
        self.assignment = None
        self.stopped = None
        self.finished = []
        self.polled, self.waiting = asyncio.Event(), asyncio.Event()

    async def start(self, assignment, _references, _blobs, timeout):
        self.assignment = assignment
        return await self.poll(assignment.job, assignment.attempt, 0, timeout)

    async def poll(self, _job_name, _attempt, after, _timeout):
        self.polled.set()
        if self.reports[after:]:
            return self.reports[after:]
        if self.error:
            raise self.error
        await self.waiting.wait()
        self.waiting.clear()
        return self.reports[after:]

    async def stop(self, job_name, attempt):
        self.stopped = (job_name, attempt)

    async def finish(self, job_name, attempt):
        self.finished.append((job_name, attempt))

    async def log_tail(self):
        return "the end of its log"


class Pool:
    """A pool with one worker that records whether the worker was released or discarded."""

    def __init__(self, worker):
        self.worker = worker
        self.outcome = None

    async def acquire(self, _device):
        return self.worker

    def release(self, _worker):
        self.outcome = "released"

    def discard(self, _worker):
        self.outcome = "discarded"


class Scene:
    """A queued job, and an attempt that runs it on a worker."""

    def __init__(self, database, folder, worker):
        self.lease = Lease(database)
        self.jobs = open_jobs(database, self.lease)
        self.worker, self.pool = worker, Pool(worker)
        self.blobs = BlobStore((folder / "blobs").as_uri(), folder / "scratch")
        checkpoints = CheckpointStore(self.blobs)
        self.checkpoints = checkpoints
        self.attempts = Attempts(self.jobs.records, self.pool, self.blobs, checkpoints, DiskSpace(folder))

    async def run(self, **spec):
        assert await self.lease.try_acquire()
        await self.jobs.create("a", spec=JobSpec(**{"epochs": 2, **spec}))
        await self.run_again()

    async def run_again(self):
        (queued,) = await self.jobs.records.queued(1)
        await self.attempts.run(queued, "cpu")

    async def job(self):
        return (await self.jobs.queries.get(OPERATOR, "jobs/a")).job


@pytest.fixture
def scene(database, tmp_path):
    return lambda *arguments, **named: Scene(database, tmp_path, Worker(*arguments, **named))


def test_a_job_that_succeeds_has_a_model_and_its_worker_is_released(scene):
    async def scenario():
        it = scene(WHOLE_JOB)
        await it.run()
        job = await it.job()
        assert (job.state, job.model, job.last_epoch.epoch) == (JobState.JOB_STATE_SUCCEEDED, "models/a", 2)
        assert it.blobs.has(FINAL.weights.sha256)
        assert (it.worker.assignment.job, it.worker.assignment.attempt) == ("jobs/a", 1)
        assert it.pool.outcome == "released"

    asyncio.run(scenario())


def test_a_job_whose_worker_is_lost_is_queued_again_and_the_worker_is_discarded(scene):
    async def scenario():
        it = scene(WHOLE_JOB[:2], error=WorkerLostError("killed"))
        await it.run()
        job = await it.job()
        assert (job.state, job.last_epoch.epoch) == (JobState.JOB_STATE_QUEUED, 1)
        assert it.pool.outcome == "discarded"

    asyncio.run(scenario())


def test_the_next_attempt_starts_from_the_newest_checkpoint(scene):
    async def scenario():
        halfway = Checkpoint(epoch=1, weights=FINAL.weights)
        it = scene([*WHOLE_JOB[:2], (Event(checkpoint=halfway), WEIGHTS)], error=WorkerLostError("killed"))
        await it.run()
        assert it.worker.assignment.resume is None
        await it.run_again()
        assert (it.worker.assignment.attempt, it.worker.assignment.resume) == (2, ResumePoint(1, WEIGHTS))

    asyncio.run(scenario())


def checkpoint(number, weights=WEIGHTS):
    sha256 = hashlib.sha256(weights).hexdigest()
    reference = TensorRef(dtype=DataType.DATA_TYPE_FLOAT32, shape=[2], sha256=sha256)
    return Event(checkpoint=Checkpoint(epoch=number, weights=reference)), weights


def epoch(number, loss=0.5):
    return Event(epoch=Epoch(epoch=number, train=Metrics(loss=loss))), None


def test_a_checkpoint_whose_epochs_were_not_stored_is_not_used(scene, monkeypatch):
    async def scenario():
        it = scene([WHOLE_JOB[0], epoch(1), checkpoint(1)], error=WorkerLostError("killed"))
        await it.run(epochs=9)
        # The server crashes after it has stored this checkpoint, and before it stores the events of the batch.
        event, weights = checkpoint(2)
        it.checkpoints.save(1, event.checkpoint, weights)
        await it.run_again()
        assert it.worker.assignment.resume == ResumePoint(1, WEIGHTS)

    asyncio.run(scenario())


BEST_OF_TRAIN = EarlyStopping(monitor="train.loss", patience=9, restore_best=True)


def test_an_attempt_knows_the_progress_of_the_stored_epochs(scene):
    async def scenario():
        it = scene([WHOLE_JOB[0], epoch(1, 0.25), checkpoint(1), epoch(2), epoch(3)], error=WorkerLostError("killed"))
        await it.run(epochs=9, early_stopping=BEST_OF_TRAIN)
        assert it.worker.assignment.progress == Progress()
        await it.run_again()
        assert it.worker.assignment.resume.epoch == 1
        assert it.worker.assignment.progress == Progress(3, 1, 0.25, 2, 0.0)

    asyncio.run(scenario())


@pytest.mark.parametrize(("damaged", "resume"), [(None, 3), (2, 1), (3, 2)])
def test_an_attempt_continues_before_the_best_epoch_if_its_weights_are_damaged(scene, damaged, resume):
    async def scenario():
        reports = [WHOLE_JOB[0]]
        for number, loss in ((1, 0.5), (2, 0.25), (3, 0.5)):
            reports += [epoch(number, loss), checkpoint(number, b"weights%d" % number)]
        it = scene(reports, error=WorkerLostError("killed"))
        await it.run(epochs=9, early_stopping=BEST_OF_TRAIN, keep=KeepPolicy(every=1))
        if damaged:
            (path,) = (path for path in it.checkpoints._files(1) if f"{damaged:010}-" in path)
            it.blobs.fs.pipe_file(path, b"damaged")
        await it.run_again()
        assert it.worker.assignment.resume.epoch == resume

    asyncio.run(scenario())


def test_what_is_no_longer_kept_is_deleted_only_after_the_job_is_stored(scene, monkeypatch):
    async def scenario():
        reports = [WHOLE_JOB[0]]
        for number, loss in ((1, 0.5), (2, 0.25), (3, 0.5), (4, 0.5), (5, 0.125)):
            reports += [epoch(number, loss), checkpoint(number, b"weights%d" % number)]
        it = scene([*reports, (Event(state_change=StateChange(state=JobState.JOB_STATE_SUCCEEDED)), None)])
        files = []
        store = it.jobs.records.record_reports

        async def noted(*arguments, **named):
            files.append(len(it.checkpoints._files(1)))
            return await store(*arguments, **named)

        monkeypatch.setattr(it.jobs.records, "record_reports", noted)
        await it.run(epochs=5, early_stopping=BEST_OF_TRAIN)
        job = await it.job()
        assert files == [4], "epoch 5 has the weights of the model, which are a blob"
        assert (list(job.kept_epochs), job.best_epoch.epoch, it.checkpoints._files(1)) == ([5], 5, [])
        assert job.disk_usage.checkpoint_bytes == 0
        assert it.blobs.has(hashlib.sha256(b"weights5").hexdigest())

    asyncio.run(scenario())


@pytest.mark.parametrize("polled_before", [True, False])
def test_a_job_that_is_stopped_on_request_makes_its_worker_finish(scene, polled_before):
    """The scheduler passes the request on, and an attempt that missed it learns about it with its next reports."""

    async def scenario():
        it = scene(WHOLE_JOB[:2])
        if not polled_before:
            reports, it.worker.reports = it.worker.reports, []
        running = asyncio.create_task(it.run())
        await it.worker.polled.wait()
        await it.jobs.commands.stop(OPERATOR, "jobs/a")
        if polled_before:
            it.attempts.finish(1)
            it.attempts.finish(2)  # Another job, which does not run here.
        else:
            it.worker.error = None
            it.worker.reports = reports
            it.worker.waiting.set()
        while not it.worker.finished:
            await asyncio.sleep(0.001)
        assert set(it.worker.finished) == {("jobs/a", 1)}
        await it.jobs.commands.cancel(OPERATOR, "jobs/a")
        running.cancel()
        await running

    asyncio.run(scenario())


def test_a_new_attempt_of_a_stopped_job_knows_the_request(scene):
    async def scenario():
        it = scene(WHOLE_JOB[:2], error=WorkerLostError("killed"))
        await it.run()
        assert not it.worker.assignment.stop_requested
        await it.jobs.commands.stop(OPERATOR, "jobs/a")
        await it.run_again()
        assert it.worker.assignment.stop_requested

    asyncio.run(scenario())


def test_weights_are_stored_before_they_are_reported(scene, monkeypatch):
    async def scenario():
        halfway = Checkpoint(epoch=1, weights=FINAL.weights)
        it = scene([*WHOLE_JOB[:2], (Event(checkpoint=halfway), WEIGHTS), *WHOLE_JOB[2:]])
        sequences = []

        def note(*_):
            connection = it.lease._database._engine.connect()
            with connection:
                sequences.append(find_job_by_key(connection, 1).job.last_sequence)

        monkeypatch.setattr(it.checkpoints, "save", note)
        monkeypatch.setattr(it.blobs, "put", note)
        await it.run()
        assert sequences[:2] == [2, 2], "only QUEUED and STARTING are stored"
        assert sequences[2:] == [8], "a client may have deleted the weights before the model referenced them"
        assert (await it.job()).state == JobState.JOB_STATE_SUCCEEDED

    asyncio.run(scenario())


@pytest.mark.parametrize(("lost", "happens"), [(0, ["acquire"]), (1, ["acquire"]), (2, ["sleep 1.0", "acquire"])])
def test_a_job_that_lost_a_second_worker_in_a_row_waits_before_its_next_attempt(scene, monkeypatch, lost, happens):
    async def scenario():
        it = scene([])
        happened = []

        async def sleep(seconds):
            happened.append(f"sleep {seconds}")

        async def acquire(_device):
            happened.append("acquire")
            raise WorkerLostError("no worker")

        assert await it.lease.try_acquire()
        await it.jobs.create("a")
        (queued,) = await it.jobs.records.queued(1)
        queued.workers_lost = lost
        monkeypatch.setattr(it.pool, "acquire", acquire)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        with pytest.raises(WorkerLostError):
            await it.attempts.run(queued, "cpu")
        assert happened == happens

    asyncio.run(scenario())


def test_an_attempt_that_missed_the_request_to_stop_notices_it_at_its_next_poll(scene):
    class Silent(Worker):
        async def poll(self, *_):
            await asyncio.sleep(0.001)
            self.polled.set()
            return []

    async def scenario():
        it = scene([])
        it.worker = it.pool.worker = Silent()
        running = asyncio.create_task(it.run())
        await it.worker.polled.wait()
        await it.jobs.commands.cancel(OPERATOR, "jobs/a")
        ended, _ = await asyncio.wait({running}, timeout=20)  # wait_for would cancel it, which also stops the worker.
        assert ended
        assert (it.worker.stopped, it.pool.outcome) == (("jobs/a", 1), "released")

    asyncio.run(scenario())


def test_an_unexpected_error_fails_the_job_and_its_worker_is_discarded(scene):
    async def scenario():
        it = scene(WHOLE_JOB[:2], error=RuntimeError("a defect"))
        await it.run()
        job = await it.job()
        assert (job.state, job.error.message.endswith("RuntimeError: a defect")) == (JobState.JOB_STATE_FAILED, True)
        assert it.pool.outcome == "discarded"

    asyncio.run(scenario())


def test_an_unavailable_store_does_not_fail_the_job(scene):
    async def scenario():
        it = scene(WHOLE_JOB[:2], error=StoreUnavailableError())
        await it.run()
        assert (await it.job()).state == JobState.JOB_STATE_RUNNING, "the next round puts it back into the queue"
        assert it.pool.outcome == "discarded"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("command", "state"), [("cancel", JobState.JOB_STATE_CANCELLED), ("pause", JobState.JOB_STATE_PAUSED)]
)
def test_a_command_that_stops_a_job_stops_and_releases_its_worker(scene, command, state):
    async def scenario():
        it = scene(WHOLE_JOB[:2])
        running = asyncio.create_task(it.run())
        await it.worker.polled.wait()
        await getattr(it.jobs.commands, command)(OPERATOR, "jobs/a")
        running.cancel()
        await running
        assert (await it.job()).state == state
        assert it.worker.stopped == ("jobs/a", 1)
        assert it.pool.outcome == "released"

    asyncio.run(scenario())


@pytest.mark.parametrize(("leave_workers", "outcome"), [(True, None), (False, "discarded")])
def test_a_server_that_stops_scheduling_leaves_workers_that_outlive_it_and_discards_the_others(
    scene, leave_workers, outcome
):
    async def scenario():
        it = scene(WHOLE_JOB[:2])
        running = asyncio.create_task(it.run())
        await it.worker.polled.wait()
        it.attempts.end(leave_workers=leave_workers)
        running.cancel()
        await running
        assert it.worker.stopped is None
        assert it.pool.outcome == outcome

    asyncio.run(scenario())


def test_a_server_that_lost_the_lease_leaves_the_worker_to_the_next(scene, database):
    async def scenario():
        database.shared = True
        it = scene([])
        running = asyncio.create_task(it.run())
        await it.worker.polled.wait()
        await it.lease.release()
        assert await Lease(database).try_acquire()
        running.cancel()
        await running
        assert it.pool.outcome is None

    asyncio.run(scenario())


def test_a_server_can_shut_down_while_an_attempt_waits_for_disk_space_to_start(scene, monkeypatch):
    async def scenario():
        it = scene([])
        waiting = asyncio.Event()

        async def start_attempt(_job_key):
            waiting.set()
            raise DiskFullError("full")

        monkeypatch.setattr(it.jobs.records, "start_attempt", start_attempt)
        running = asyncio.create_task(it.run())
        await waiting.wait()
        it.attempts.end(leave_workers=True)
        running.cancel()
        ended, _ = await asyncio.wait({running}, timeout=60)
        assert ended
        assert it.pool.outcome is None

    asyncio.run(scenario())


def test_a_job_that_is_cancelled_while_it_starts_ends_and_releases_the_worker(scene, database):
    async def scenario():
        it = scene([])
        assert await it.lease.try_acquire()
        await it.jobs.create("a", spec=JobSpec(epochs=2))
        (queued,) = await it.jobs.records.queued(1)
        async with blocked_writes(database) as next_write:
            running = asyncio.create_task(it.attempts.run(queued, "cpu"))
            await next_write()
            running.cancel()
        await running
        assert (await it.job()).state == JobState.JOB_STATE_QUEUED
        assert (it.pool.outcome, it.worker.assignment) == ("released", None)

    asyncio.run(scenario())


def test_a_repeated_request_to_stop_does_not_interrupt_the_first(jobs):
    class SlowAttempts:
        stopping, stopped, done = asyncio.Event(), 0, asyncio.Event()

        async def take_over(self, _record, _worker):
            try:
                await asyncio.Future()
            except asyncio.CancelledError:
                self.stopping.set()
                await self.done.wait()
                self.stopped += 1

    async def scenario():
        attempts = SlowAttempts()
        scheduler = Scheduler(jobs.records, Pool(None), attempts)
        record = await jobs.start()
        scheduler.take_over(record, None)
        await asyncio.sleep(0)
        for _ in range(3):
            scheduler.on_change(JobChange(record.job_key, stop=True))
            await attempts.stopping.wait()
        attempts.done.set()
        await asyncio.wait_for(asyncio.gather(*scheduler._running.values()), 60)
        assert attempts.stopped == 1

    asyncio.run(scenario())


def test_after_two_crashes_suspects_run_one_at_a_time(jobs):
    class FreePool:
        def free(self, device):
            return 8 if device == "cpu" else 0

        def device_for(self, _device):
            return "cpu"

    class StartedAttempts:
        def __init__(self):
            self.started = []

        async def run(self, record, _device):
            await jobs.records.start_attempt(record.job_key)
            self.started.append(record.job_id)
            await asyncio.Future()

    async def scenario():
        for job_id in ("a", "b"):
            await jobs.create(job_id)
        for _ in range(2):
            for key in (1, 2):
                await jobs.records.start_attempt(key)
            await jobs.records.requeue_active(except_keys=[], after_crash=True)
        await jobs.create("innocent")
        attempts = StartedAttempts()
        scheduler = Scheduler(jobs.records, FreePool(), attempts)
        with jobs.notifier.subscribed(scheduler):
            running = asyncio.create_task(scheduler.run())
            while "innocent" not in attempts.started:
                await asyncio.sleep(0.001)
            await scheduler._run_round()
            assert scheduler._running.keys() == {1, 3}
            assert sorted(attempts.started) == ["a", "innocent"]
            epoch = Event(epoch=Epoch(epoch=1))
            await jobs.records.record_reports(1, 3, [epoch], 1)  # The first suspect is cleared.
            while "b" not in attempts.started:
                await asyncio.sleep(0.001)
            running.cancel()
            await asyncio.wait([running])
        await scheduler.close()

    asyncio.run(scenario())


def test_a_job_waits_while_the_disk_is_full_and_its_log_says_so(scene, monkeypatch):
    async def scenario():
        monkeypatch.setattr(disk_space_module, "_CHECK_SECONDS", 0.01)
        it = scene(WHOLE_JOB)
        checks = iter([DiskFullError("full"), DiskFullError("full"), None])

        def require():
            error = next(checks)
            if error:
                raise error

        monkeypatch.setattr(it.attempts._disk_space, "require_for_running_work", require)
        await it.run()
        events = await anext(it.jobs.queries.watch(OPERATOR, "jobs/a", 0))
        warnings = [event.warning for event in events if event.HasField("warning")]
        assert [each.reason for each in warnings] == [JobWarningReason.JOB_WARNING_REASON_DISK_FULL]
        assert "The job waited for" in warnings[0].message
        assert (await it.job()).state == JobState.JOB_STATE_SUCCEEDED

    asyncio.run(scenario())
