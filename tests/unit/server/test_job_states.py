"""The states of jobs under any order of commands, reports, crashes and lease changes, compared with a small model."""

import asyncio
import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from server_parts import open_jobs

from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState, StateChange
from gradwire_server.errors import DomainError
from gradwire_server.jobs.attempt_records import MAX_WORKERS_LOST, AttemptOverError
from gradwire_server.principal import OPERATOR
from gradwire_server.scheduling.lease import Lease, LeaseLostError
from gradwire_server.store import job_queries, model_queries
from gradwire_server.store.database import Database

EPOCHS = 4
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
ACTIVE = ("STARTING", "RUNNING")
JOBS = st.sampled_from("ab")
# An empty database, which is created only once.
TEMPLATE: list[bytes] = []


@dataclass
class Model:
    """The expected state of a job.

    Attributes:
        log: The kinds of the job's events.
        position: The epoch that its worker has reached, which is below `epochs` if the worker repeats epochs.
    """

    state: str = "QUEUED"
    attempt: int = 0
    epochs: int = 0
    workers_lost: int = 0
    log: list[str] = field(default_factory=lambda: ["QUEUED"])
    reported: int = 0
    position: int = 0
    stopped: bool = False

    def enter(self, state: str) -> None:
        self.state = state
        self.log.append(state)


class JobStates(RuleBasedStateMachine):
    """Two jobs on a server that can crash and restart, and whose lease another server can take."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="job-states-"))
        self.models: dict[str, Model] = {}
        self.keys: dict[str, int] = {}
        self.new_keys = itertools.count(1)
        self.has_model: set[str] = set()

        if not TEMPLATE:
            Database(self.folder / "gradwire.db").close()
            TEMPLATE.append((self.folder / "gradwire.db").read_bytes())
        (self.folder / "gradwire.db").write_bytes(TEMPLATE[0])
        self.start_server()

    def start_server(self) -> None:
        self.database = Database(self.folder / "gradwire.db")
        self.take_lease()

    def take_lease(self) -> None:
        lease = Lease(self.database)
        assert self.wait(lease.try_acquire())
        self.jobs = open_jobs(self.database, lease)

    def teardown(self) -> None:
        self.check_logs()
        self.database.close()
        self.runner.close()
        shutil.rmtree(self.folder)

    def wait(self, work):
        return self.runner.run(asyncio.wait_for(work, 20))

    def refused(self, work, error=DomainError):
        with pytest.raises(error) as caught:
            self.wait(work)
        return type(caught.value).__name__

    # The actions of clients.

    @rule(job=JOBS)
    def create(self, job):
        creation = self.jobs.create(job, spec=JobSpec(epochs=EPOCHS))
        if job in self.models:
            assert self.refused(creation) == "JobAlreadyExistsError"
        elif job in self.has_model:
            assert self.refused(creation) == "ModelAlreadyExistsError"
        else:
            self.wait(creation)
            self.models[job], self.keys[job] = Model(), next(self.new_keys)

    @rule(job=JOBS, command=st.sampled_from(["pause", "resume", "cancel", "delete"]))
    def command(self, job, command):
        call = getattr(self.jobs.commands, command)(OPERATOR, f"jobs/{job}")
        model = self.models.get(job)
        if model is None:
            assert self.refused(call) == "JobNotFoundError"
        elif command == "delete":
            if model.state not in ENDED:
                assert self.refused(call) == "JobNotEndedError"
            else:
                self.wait(call)
                del self.models[job], self.keys[job]
        elif model.state in ENDED and command != "cancel":
            assert self.refused(call) == "JobEndedError"
        elif command == "resume" and "PAUSED" not in model.log:
            assert self.refused(call) == "JobNotPausedError"
        else:
            self.wait(call)
            if command == "cancel" and model.state not in ENDED:
                model.enter("CANCELLED")
            elif command == "pause" and model.state != "PAUSED":
                model.enter("PAUSED")
            elif command == "resume" and model.state == "PAUSED":
                model.enter("QUEUED")

    @rule(job=JOBS)
    def stop(self, job):
        call = self.jobs.commands.stop(OPERATOR, f"jobs/{job}")
        model = self.models.get(job)
        if model is None:
            assert self.refused(call) == "JobNotFoundError"
            return
        self.wait(call)
        if model.state not in ENDED:
            model.stopped = True
        if model.state == "PAUSED":
            model.enter("QUEUED")

    # The actions of the scheduling server.

    @rule(job=JOBS, repeats=st.integers(0, 3))
    def start_attempt(self, job, repeats):
        """The worker continues from a checkpoint, which can be some epochs old."""
        model = self.models.get(job)
        call = self.jobs.records.start_attempt(self.keys.get(job, 0))
        if model is None or model.state != "QUEUED":
            assert self.refused(call, AttemptOverError)
            return
        assert self.wait(call).job.attempt == model.attempt + 1
        model.attempt += 1
        model.reported = 0
        model.position = max(0, model.epochs - repeats)
        model.enter("STARTING")

    @precondition(lambda self: self.models)
    @rule(
        data=st.data(),
        epochs=st.integers(0, 2),
        fails=st.booleans(),
        late=st.integers(0, 1),
        times=st.integers(1, 2),
    )
    def report(self, data, epochs, fails, late, times):
        """The worker of the current or the previous attempt sends a report, and each report can arrive twice."""
        job = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job]
        attempt = model.attempt - late
        new, log = [], []
        if model.state == "STARTING":
            new.append(Event(state_change=StateChange(state=JobState.JOB_STATE_RUNNING)))
            log.append("RUNNING")
        reached = min(EPOCHS, model.position + epochs)
        for epoch in range(model.position + 1, reached + 1):
            new.append(Event(epoch=Epoch(epoch=epoch, running_loss=1 / epoch)))
            log += [f"epoch {epoch}"] if epoch > model.epochs else []
        if reached == EPOCHS:
            weights = TensorRef(dtype=1, shape=[2], sha256="0" * 64)
            new.append(Event(checkpoint=Checkpoint(epoch=EPOCHS, weights=weights)))
            end = "FAILED" if fails else "SUCCEEDED"
            new.append(Event(state_change=StateChange(state=JobState.Value(f"JOB_STATE_{end}"))))
            log += ["checkpoint", end]
        if not new:
            return
        for time in range(times):
            call = self.jobs.records.record_reports(self.keys[job], attempt, new, model.reported + len(new))
            if late or model.state not in ACTIVE:
                assert self.refused(call, AttemptOverError)
                continue
            self.wait(call)
            if time == 0:
                model.log += log
                model.epochs = max(model.epochs, reached)
                model.position = reached
                if any(entry.startswith("epoch") for entry in log):
                    model.workers_lost = 0
                model.state = next((entry for entry in reversed(log) if entry.isupper()), model.state)
        if not late:
            model.reported += len(new)
        if model.state == "SUCCEEDED":
            self.has_model.add(job)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), late=st.integers(0, 1))
    def lose_worker(self, data, late):
        job = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job]
        call = self.jobs.records.worker_lost(self.keys[job], model.attempt - late, "killed", "")
        if late or model.state not in ACTIVE:
            assert self.refused(call, AttemptOverError)
            return
        self.wait(call)
        model.workers_lost += 1
        if model.workers_lost == MAX_WORKERS_LOST:
            model.enter("FAILED")
        else:
            model.log.append("warning")
            model.enter("QUEUED")

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def interrupt(self, data):
        job = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[job]
        call = self.jobs.records.requeue(self.keys[job], model.attempt)
        if model.state not in ACTIVE:
            assert self.refused(call, AttemptOverError)
            return
        self.wait(call)
        model.enter("QUEUED")

    @rule()
    def crash_and_restart(self):
        self.database.close()
        self.start_server()
        self.wait(self.jobs.records.requeue_active(except_keys=()))
        for model in self.models.values():
            if model.state in ACTIVE:
                model.log.append("warning")
                model.enter("QUEUED")

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def another_server_takes_the_lease(self, data):
        """The server that held the lease can no longer write anything for attempts."""
        job = data.draw(st.sampled_from(sorted(self.models)))
        key, attempt, earlier = self.keys[job], self.models[job].attempt, self.jobs.records
        self.take_lease()
        epoch = [Event(epoch=Epoch(epoch=1))]
        for call in (
            earlier.start_attempt(key),
            earlier.record_reports(key, attempt, epoch, 10**6),
            earlier.worker_lost(key, attempt, "killed", ""),
            earlier.requeue(key, attempt),
        ):
            self.refused(call, LeaseLostError)

    # The conditions that must hold after each step.

    @invariant()
    def the_jobs_are_as_the_model_says(self):
        records = self.wait(
            self.database.read(lambda connection: job_queries.jobs_in_states(connection, JobState.values()))
        )
        assert [record.job_key for record in records] == sorted(self.keys.values())
        for record in records:
            model = self.models[record.job_id]
            job = record.job
            assert JobState.Name(job.state) == f"JOB_STATE_{model.state}"
            assert (job.attempt, job.last_epoch.epoch, job.last_sequence) == (
                model.attempt,
                model.epochs,
                len(model.log),
            )
            assert job.HasField("end_time") == (model.state in ENDED)
            assert job.HasField("stop_request_time") == model.stopped
            assert job.model == (f"models/{record.job_id}" if model.state == "SUCCEEDED" else "")

    def check_logs(self):
        for job, model in self.models.items():
            key = self.keys[job]
            events = self.wait(
                self.database.read(lambda connection, key=key: job_queries.events_after(connection, key, 0, 1000))
            )
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert [kind(event) for event in events] == model.log
        for job in "ab":
            found = self.wait(self.database.read(lambda connection, job=job: model_queries.find_model(connection, job)))
            assert (found is not None) == (job in self.has_model)


def kind(event):
    if event.HasField("epoch"):
        return f"epoch {event.epoch.epoch}"
    if event.HasField("state_change"):
        return JobState.Name(event.state_change.state).removeprefix("JOB_STATE_")
    return event.WhichOneof("kind")


def test_jobs_match_the_model_after_any_sequence_of_steps():
    chosen = settings(
        max_examples=10,
        stateful_step_count=30,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # Finding a shorter sequence that fails would take minutes.
    )
    run_state_machine_as_test(JobStates, settings=chosen)
