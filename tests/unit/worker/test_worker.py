"""The parts of the worker, without Ray: the outbox, the checkpoint policy, the blob reader, and a local Trainer."""

import dataclasses
import hashlib
import itertools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest import mock

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine import Linear, ReLU, Sequential
from gradwire_engine.plans import ReferencePlan
from gradwire_engine.spec.prepare import starting_weights
from gradwire_engine.spec.resolve import network, resolve
from gradwire_engine.spec.tensors import tensor_ref, wire_bytes
from gradwire_engine.spec.tracing import trace
from gradwire_engine.stopping import Progress
from gradwire_engine.training import LossNotFiniteError, train
from gradwire_proto.v1.errors_pb2 import JobErrorReason
from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.spec_pb2 import Dataset, EarlyStopping, JobSpec
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState, StateChange, StopReason
from gradwire_worker.blob_reader import BlobLostError, BlobReader
from gradwire_worker.blob_urls import has_credentials, without_credentials
from gradwire_worker.checkpoint_policy import CheckpointPolicy
from gradwire_worker.messages import Assignment, Report, ResumePoint, pack, unpack
from gradwire_worker.outbox import Outbox
from gradwire_worker.trainer import StaleAttemptError, Trainer


def event(number):
    return Event(sequence=number)


def sequences(reports):
    return [report.sequence for report in reports]


def test_reports_are_kept_until_they_are_acknowledged():
    outbox = Outbox()
    for number in range(3):
        outbox.add(event(number))
    assert sequences(outbox.take(0, timeout=0)) == [1, 2, 3]
    assert sequences(outbox.take(0, timeout=0)) == [1, 2, 3]
    assert sequences(outbox.take(2, timeout=0)) == [3]
    assert outbox.take(3, timeout=0) == []


def until_it_waits(condition):
    """Wait until a thread is waiting for a condition."""
    deadline = time.monotonic() + 20
    while not condition._waiters:
        assert time.monotonic() < deadline, "nothing waits"
        time.sleep(0.001)


def test_a_poll_waits_for_the_next_report():
    outbox = Outbox()
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(outbox.take, 0, 20)
        until_it_waits(outbox._has_reports)
        assert not taken.done()
        outbox.add(event(1))
        assert sequences(taken.result(20)) == [1]


def test_a_poll_without_a_report_ends_after_its_timeout():
    started = time.monotonic()
    assert Outbox().take(0, timeout=0.05) == []
    assert 0.05 <= time.monotonic() - started < 20


def test_fast_epochs_are_gathered_and_other_reports_are_sent_immediately(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._GATHER_SECONDS", 3600)
    outbox = Outbox()
    epoch, other = Event(epoch=Epoch(epoch=1)), Event(checkpoint=Checkpoint(epoch=1))
    for number in range(1, 21):
        outbox.add(epoch)
        assert outbox.take(number - 1, 1)[-1].sequence == number, "the first ones go out at once"
    outbox.add(epoch)
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(outbox.take, 20, 3600)
        outbox.add(epoch)
        with pytest.raises(TimeoutError):
            taken.result(0.2)
        outbox.add(other)
        assert [report.sequence for report in taken.result(60)] == [21, 22, 23]
        taken = pool.submit(outbox.take, 23, 3600)
        for _ in range(1000):
            outbox.add(epoch)
        assert len(taken.result(60)) == 1000


def test_the_first_report_waits_a_moment_for_the_first_epoch(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._FIRST_EPOCH_SECONDS", 3600)
    outbox = Outbox()
    outbox.add(Event(state_change=StateChange(state=JobState.JOB_STATE_RUNNING)))
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(outbox.take, 0, 3600)
        with pytest.raises(TimeoutError):
            taken.result(0.2)
        outbox.add(Event(epoch=Epoch(epoch=1)))
        assert sequences(taken.result(60)) == [1, 2]
    monkeypatch.setattr("gradwire_worker.outbox._FIRST_EPOCH_SECONDS", 0.001)
    outbox = Outbox()
    outbox.add(Event(state_change=StateChange(state=JobState.JOB_STATE_RUNNING)))
    assert sequences(outbox.take(0, 3600)) == [1], "a long first epoch does not delay it"


def test_packed_reports_are_unpacked_unchanged():
    reports = [Report(7, b"one"), Report(8, b"two", b"weights"), Report(9, b"three")]
    assert unpack(pack(reports)) == reports
    assert unpack(pack([])) == []


def test_training_waits_while_too_many_reports_are_unacknowledged(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_UNACKNOWLEDGED", 2)
    outbox = Outbox()
    outbox.add(event(1))
    outbox.add(event(2))
    with ThreadPoolExecutor() as pool:
        added = pool.submit(outbox.add, event(3))
        until_it_waits(outbox._has_capacity)
        assert sequences(outbox.take(0, timeout=0)) == [1, 2], "not acknowledged"
        assert not added.done()
        assert sequences(outbox.take(1, timeout=20)) in ([2], [2, 3])
        added.result(20)
        assert sequences(outbox.take(2, timeout=20)) == [3]


def test_training_does_not_wait_for_a_closed_outbox(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_UNACKNOWLEDGED", 0)
    outbox = Outbox()
    with ThreadPoolExecutor() as pool:
        added = pool.submit(outbox.add, event(1))
        until_it_waits(outbox._has_capacity)
        outbox.close()
        added.result(20)
    outbox.add(event(2))
    assert sequences(outbox.take(0, timeout=0)) == [1, 2]


def test_training_waits_while_too_many_weights_are_unacknowledged(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_UNACKNOWLEDGED_BYTES", 100)
    outbox = Outbox()
    outbox.add(event(1), weights=b"x" * 1000)  # The first ones are taken, regardless of their size.
    outbox.add(event(2))
    with ThreadPoolExecutor() as pool:
        added = pool.submit(outbox.add, event(3), b"x" * 80)
        until_it_waits(outbox._has_capacity)
        assert sequences(outbox.take(0, timeout=0)) == [1, 2]
        assert not added.done()
        outbox.take(1, timeout=0)
        added.result(20)
        waiting = pool.submit(outbox.add, event(4), b"x" * 21)
        until_it_waits(outbox._has_capacity)
        outbox.take(3, timeout=0)
        waiting.result(20)


def test_a_poll_returns_a_bounded_number_of_bytes(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_BYTES_PER_POLL", 100)
    outbox = Outbox()
    for number in range(3):
        outbox.add(event(number), weights=b"x" * 80)
    assert sequences(outbox.take(0, timeout=0)) == [1]
    assert sequences(outbox.take(1, timeout=0)) == [2]


steps = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 30), st.sampled_from(["epoch", "checkpoint"])),
    st.tuples(st.just("take"), st.integers(0, 40), st.just("")),
)


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(steps=st.lists(steps, max_size=25))
def test_whatever_the_server_acknowledges_it_gets_every_report_once_in_order(steps):
    """A restarted server polls for the reports after the last one that it stored, so it can receive reports again."""
    added: list[Report] = []
    acknowledged = 0
    with (
        mock.patch("gradwire_worker.outbox._GATHER_SECONDS", 0),
        mock.patch("gradwire_worker.outbox._MAX_REPORTS_PER_POLL", 25),
        mock.patch("gradwire_worker.outbox._MAX_BYTES_PER_POLL", 300),
    ):
        outbox = Outbox()
        for action, count, kind in steps:
            if action == "add":
                for _ in range(count):
                    number = len(added) + 1
                    made = Event(epoch=Epoch(epoch=number))
                    weights = None
                    if kind == "checkpoint":
                        made, weights = Event(checkpoint=Checkpoint(epoch=number)), bytes(70)
                    outbox.add(made, weights)
                    added.append(Report(number, made.SerializeToString(), weights))
                continue
            taken = outbox.take(acknowledged, timeout=0)
            assert taken == added[acknowledged : acknowledged + len(taken)]
            assert bool(taken) == (acknowledged < len(added))
            assert len(taken) <= 25
            assert len(taken) <= 1 or sum(len(each.event) + len(each.weights or b"") for each in taken) <= 300
            # The server stored only some of the reports, and asks for the others again.
            acknowledged += min(count, len(taken))
        while acknowledged < len(added):
            taken = outbox.take(acknowledged, timeout=0)
            assert taken == added[acknowledged : acknowledged + len(taken)] != []
            acknowledged += len(taken)
        assert outbox.take(acknowledged, timeout=0) == []
        assert outbox._reports == [], "what is acknowledged is not kept"


def test_the_interval_of_checkpoints_depends_on_their_cost():
    now = 0.0
    policy = CheckpointPolicy(clock=lambda: now)
    assert not policy.is_due()
    now = 1.0
    assert policy.is_due()
    policy.record(seconds=0.1)  # At 2% of the time, the next checkpoint is due after 5 s.
    now = 5.9
    assert not policy.is_due()
    now = 6.0
    assert policy.is_due()
    policy.record(seconds=100)  # Even after a very slow checkpoint, the next one is due after 30 s.
    now = 36.0
    assert policy.is_due()


@pytest.fixture
def store(tmp_path):
    def put(array):
        reference = tensor_ref(array)
        path = tmp_path / "blobs" / reference.sha256[:2] / reference.sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wire_bytes(array))
        return reference

    put.url = (tmp_path / "blobs").as_uri()
    put.path = tmp_path / "blobs"
    return put


def test_a_local_blob_is_memory_mapped(store):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    loaded = BlobReader(store.url).load(store(array))
    assert isinstance(loaded, np.memmap)
    assert np.array_equal(loaded, array)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0, 0] = 1


def test_a_remote_blob_is_fetched_once_and_memory_mapped(tmp_path):
    array = np.arange(6, dtype=np.int64)
    reference = tensor_ref(array)
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/store/{reference.sha256[:2]}/{reference.sha256}", bytes(wire_bytes(array)))
    reader = BlobReader("memory://store", cache=tmp_path)
    assert np.array_equal(reader.load(reference), array)
    memory.pipe_file(f"/store/{reference.sha256[:2]}/{reference.sha256}", b"changed afterwards")
    assert np.array_equal(reader.load(reference), array)


def test_a_damaged_copy_on_the_node_is_fetched_again(tmp_path):
    array = np.arange(7, dtype=np.int64)
    reference = tensor_ref(array)
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/store/{reference.sha256[:2]}/{reference.sha256}", bytes(wire_bytes(array)))
    (tmp_path / reference.sha256).write_bytes(bytes(array.nbytes))
    assert np.array_equal(BlobReader("memory://store", cache=tmp_path).load(reference), array)


@pytest.mark.parametrize("taken", ["folder that others can write to", "link", "file"])
def test_a_cache_that_another_user_has_prepared_is_not_used(tmp_path, monkeypatch, taken):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    name = tmp_path / f"gradwire-cache-{os.getuid()}"
    if taken == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        name.symlink_to(tmp_path / "elsewhere")
    elif taken == "file":
        name.touch()
    else:
        name.mkdir()
        name.chmod(0o777)
    array = np.arange(8, dtype=np.int64)
    reference = tensor_ref(array)
    path = f"/store/{reference.sha256[:2]}/{reference.sha256}"
    fsspec.filesystem("memory").pipe_file(path, bytes(wire_bytes(array)))
    assert np.array_equal(BlobReader("memory://store").load(reference), array)
    (copy,) = tmp_path.glob(f"*/{reference.sha256}")
    assert copy.parent.resolve() not in {name, name.resolve()}
    assert copy.parent.stat().st_mode & 0o777 == 0o700


def test_an_error_names_a_missing_short_or_damaged_blob(store):
    reference = store(np.arange(4, dtype=np.int64))
    path = store.path / reference.sha256[:2] / reference.sha256
    path.write_bytes(b"x" * 32)
    with pytest.raises(BlobLostError, match="is damaged"):
        BlobReader(store.url).load(reference)
    path.write_bytes(b"x")
    with pytest.raises(BlobLostError, match="has 1 bytes, expected 32"):
        BlobReader(store.url).load(reference)
    path.unlink()
    with pytest.raises(BlobLostError, match="is not in the blob store"):
        BlobReader(store.url).load(reference)


def test_only_the_log_says_in_which_store_a_blob_is_missing_and_hides_the_password(store, caplog):
    reference = store(np.arange(4, dtype=np.int64))
    with pytest.raises(BlobLostError) as caught:
        BlobReader("memory://user:secret@elsewhere/blobs").load(reference)
    assert "elsewhere" not in str(caught.value)
    assert "memory://user:***@elsewhere/blobs" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "shown", "has_secret"),
    [
        ("sftp://user:secret@host:22/blobs", "sftp://user:***@host:22/blobs", True),
        ("sftp://user:sec@ret@host/blobs", "sftp://user:***@host/blobs", True),
        ("s3://KEY:secret@bucket/blobs", "s3://KEY:***@bucket/blobs", True),
        ("simplecache::ftp://user:secret@host/a", "simplecache::ftp://user:***@host/a", True),
        ("abfs://blobs/a?sv=1&sig=secret", "abfs://blobs/a?***", True),
        ("zip://a?account_KEY=secret::s3://bucket", "zip://a?***::s3://bucket", True),
        ("sftp://user@host:22/a@b:c", "sftp://user@host:22/a@b:c", False),
        ("s3://bucket/a?versionAware=1", "s3://bucket/a?***", False),
        ("file:///data/blobs", "file:///data/blobs", False),
        ("/data/a:b@c", "/data/a:b@c", False),
    ],
)
def test_the_url_of_a_blob_store_is_shown_without_the_secrets_in_it(url, shown, has_secret):
    assert without_credentials(url) == shown
    assert has_credentials(url) is has_secret


def make_spec(store, epochs=3, learning_rate=0.1):
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 4)), np.arange(30) % 3
    spec = JobSpec(
        model=trace(Sequential(Linear(8), ReLU(), Linear(3))).spec,
        train=Dataset(inputs=store(x), targets=store(y)),
        epochs=epochs,
        batch_size=7,
        shuffle=True,
    )
    spec.loss.cross_entropy.SetInParent()
    spec.optimizer.sgd.learning_rate = learning_rate
    return resolve(spec)


def assignment(store, spec, attempt=1, resume=None):
    return Assignment("jobs/a", attempt, spec.SerializeToString(), 0, True, store.url, resume)


def run_to_end(trainer, attempt=1):
    reports, ended = [], False
    while not ended:
        reports += unpack(trainer.poll("jobs/a", attempt, reports[-1].sequence if reports else 0, 30))
        ended = reports[-1].to_event().state_change.state > JobState.JOB_STATE_RUNNING
    return reports


def test_a_trainer_reports_its_start_epochs_weights_and_success(store):
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store)))
    reports = run_to_end(trainer)
    kinds = [report.to_event().WhichOneof("kind") for report in reports]
    # On a busy machine, there can be checkpoints between the epochs.
    assert [kind for kind in kinds[:-2] if kind != "checkpoint"] == ["state_change", "epoch", "epoch", "epoch"]
    assert kinds[-2:] == ["checkpoint", "state_change"]
    assert [epoch.epoch for epoch in epochs_of(reports)] == [1, 2, 3]
    weights = reports[-2]
    assert hashlib.sha256(weights.weights).hexdigest() == weights.to_event().checkpoint.weights.sha256
    assert reports[0].to_event().state_change.execution.plan


def epochs_of(reports):
    return [report.to_event().epoch for report in reports if report.to_event().HasField("epoch")]


def test_a_trainer_that_continues_from_a_checkpoint_gives_bit_identical_results(store):
    spec = make_spec(store)
    whole, first, second = Trainer(), Trainer(), Trainer()
    whole.start(assignment(store, spec))
    expected = run_to_end(whole)
    short = make_spec(store, epochs=2)
    first.start(assignment(store, short))
    halfway = run_to_end(first)[-2]
    second.start(assignment(store, spec, 2, ResumePoint(halfway.to_event().checkpoint.epoch, halfway.weights)))
    resumed = run_to_end(second, attempt=2)
    assert [epoch.epoch for epoch in epochs_of(resumed)] == [3]
    assert epochs_of(resumed)[0].running_loss == epochs_of(expected)[2].running_loss
    assert resumed[-2].weights == expected[-2].weights


def test_a_trainer_uses_tensors_that_it_receives_with_the_assignment(store, tmp_path):
    spec = make_spec(store)
    reader = BlobReader(store.url)
    tensors = {ref.sha256: np.array(reader.load(ref)) for ref in (spec.train.inputs, spec.train.targets)}
    elsewhere = Assignment("jobs/a", 1, spec.SerializeToString(), 0, True, (tmp_path / "nowhere").as_uri())
    trainer = Trainer()
    assert not trainer.can_read(elsewhere.blobs, "0" * 64)
    trainer.start(elsewhere, tensors)
    assert run_to_end(trainer)[-1].to_event().state_change.state == JobState.JOB_STATE_SUCCEEDED


def test_a_loss_that_diverges_fails_the_job_with_advice(store):
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store, epochs=50, learning_rate=1e30)))
    last = run_to_end(trainer)[-1].to_event().state_change
    assert last.state == JobState.JOB_STATE_FAILED
    assert last.error.reason == JobErrorReason.JOB_ERROR_REASON_LOSS_NOT_FINITE
    assert "lr=1e+30" in last.error.message


def test_missing_data_fails_the_job(store):
    spec = make_spec(store)
    sha256 = spec.train.inputs.sha256
    (store.path / sha256[:2] / sha256).unlink()
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    assert run_to_end(trainer)[-1].to_event().state_change.error.reason == JobErrorReason.JOB_ERROR_REASON_DATA_LOST


def test_a_worker_that_no_server_calls_ends_itself():
    script = "import time; from gradwire_worker.trainer import Trainer; Trainer(0.5); time.sleep(3600)"
    environment = os.environ | {"GRADWIRE_PLAN": "reference"}  # It needs no compiler.
    assert subprocess.run([sys.executable, "-c", script], check=False, env=environment, timeout=280).returncode == 0


def trained_slices(monkeypatch):
    """A queue with an entry for each slice of an epoch that the reference plan has trained."""
    slices: queue.SimpleQueue[int] = queue.SimpleQueue()
    train = ReferencePlan.train

    def noted(*arguments):
        loss_sum = train(*arguments)
        slices.put(1)
        return loss_sum

    monkeypatch.setattr(ReferencePlan, "train", noted)
    return slices


def stop(trainer):
    """Stop attempt 1. If it does not stop within 20 s, the test fails and does not wait for it."""
    stopping = threading.Thread(target=trainer.stop, args=("jobs/a", 1), daemon=True)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_stop_ends_training_in_the_middle_of_an_epoch(store, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    slices = trained_slices(monkeypatch)
    rows = 1_000_000  # With one row in a batch, an epoch takes minutes.
    data = Dataset(inputs=store(np.zeros((rows, 4))), targets=store(np.zeros(rows, np.int64)))
    spec = make_spec(store)
    spec.train.CopyFrom(data)
    spec.batch_size = 1
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    assert unpack(trainer.poll("jobs/a", 1, 0, 20)), "it runs"
    for _ in range(3):
        slices.get(timeout=20)
    stop(trainer)
    assert not trainer._run.is_alive()
    assert unpack(trainer.poll("jobs/a", 1, 1, 0)) == [], "no epoch"


def test_a_stop_ends_training_that_waits_for_acknowledgements(store, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    monkeypatch.setattr("gradwire_worker.outbox._MAX_UNACKNOWLEDGED", 3)
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store, epochs=10)))
    until_it_waits(trainer._run.outbox._has_capacity)
    stop(trainer)
    assert not trainer._run.is_alive()


def test_every_call_of_a_server_keeps_a_worker_from_ending_itself(store, monkeypatch):
    """The test controls the clock: a call arrives every 800 s, and then no call arrives for more than 900 s."""
    now, slept = 0.0, 0
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store)))
    calls = iter([trainer.ping, lambda: trainer.poll("jobs/a", 1, 0, 0), lambda: trainer.stop("jobs/a", 1)])
    due = 800.0

    def sleep(seconds):
        nonlocal now, due, slept
        now += seconds
        slept += 1
        if now >= due:
            call = next(calls, None)
            if call is not None:
                call()
            due = now + 800

    def end(code):
        raise SystemExit(code)

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep, perf_counter=time.perf_counter)
    monkeypatch.setattr("gradwire_worker.trainer.time", clock)
    monkeypatch.setattr("gradwire_worker.trainer.os", SimpleNamespace(_exit=end))
    trainer._called = 0.0
    with pytest.raises(SystemExit):
        trainer._end_when_abandoned(900)
    assert next(calls, None) is None, "each call came in time"
    assert now == 3 * 810 + 900


_ON_A_SMALL_WORKER = """
import sys
from gradwire_proto.v1.training_service_pb2 import JobState
from gradwire_worker.messages import Assignment, unpack
from gradwire_worker.trainer import Trainer

trainer = Trainer(memory=64 << 20)
for attempt, spec in enumerate(sys.argv[2:]):
    trainer.start(Assignment("jobs/a", attempt, bytes.fromhex(spec), 0, True, sys.argv[1]))
    last = 0
    while True:
        reports = unpack(trainer.poll("jobs/a", attempt, last, 30))
        last, event = reports[-1].sequence, reports[-1].to_event()
        if event.state_change.state > JobState.JOB_STATE_RUNNING:
            break
    print(event.state_change.error.reason, event.state_change.error.message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such limit")
def test_a_job_that_is_too_large_for_its_worker_fails_with_a_clear_reason_and_the_next_one_runs(store):
    large = make_spec(store)
    large.model.layers[0].linear.out_features = 30_000_000  # 480 MB.
    specs = [spec.SerializeToString().hex() for spec in (resolve(large), make_spec(store))]
    command = [sys.executable, "-c", _ON_A_SMALL_WORKER, store.url, *specs]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    failed, succeeded = run.stdout.splitlines()
    assert failed.startswith(f"{JobErrorReason.JOB_ERROR_REASON_OUT_OF_MEMORY} Unable to allocate")
    assert failed.endswith("Use a smaller model, or a worker with more memory")
    assert succeeded == "0 "


def test_a_stopped_attempt_reports_nothing_more_and_another_attempt_is_refused(store):
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store, epochs=10**6)))
    trainer.poll("jobs/a", 1, 0, 30)
    stop(trainer)
    trainer.start(assignment(store, make_spec(store), attempt=2))
    with pytest.raises(StaleAttemptError, match="attempt 1"):
        trainer.poll("jobs/a", 1, 0, 0)
    assert run_to_end(trainer, attempt=2)[-1].to_event().state_change.state == JobState.JOB_STATE_SUCCEEDED


def test_a_stop_waits_for_a_start_that_is_not_over(store, monkeypatch):
    begun, gate = threading.Event(), threading.Event()

    def start_slowly(run):
        begun.set()
        gate.wait(30)
        threading.Thread.start(run)

    monkeypatch.setattr("gradwire_worker.trainer._Run.start", start_slowly)
    trainer = Trainer()
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(trainer.start, assignment(store, make_spec(store, epochs=10**6)))
        begun.wait(30)
        stopping = pool.submit(trainer.stop, "jobs/a", 1)
        with pytest.raises(TimeoutError):
            stopping.result(0.1)
        gate.set()
        starting.result(30)
        stopping.result(30)
    assert not trainer._run.is_alive()


def test_a_start_that_arrives_after_its_stop_is_refused(store):
    trainer = Trainer()
    trainer.stop("jobs/a", 2)
    spec = make_spec(store)  # It writes the blobs, which it must not do while the trainer reads them.
    trainer.start(assignment(store, spec))
    with pytest.raises(StaleAttemptError, match="attempt 2 of jobs/a was stopped"):
        trainer.start(assignment(store, spec, attempt=2))
    assert run_to_end(trainer)[-1].to_event().state_change.state == JobState.JOB_STATE_SUCCEEDED


def test_weights_have_the_layout_of_the_network(store):
    spec = make_spec(store)
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    weights = np.frombuffer(run_to_end(trainer)[-2].weights, np.float32)
    assert weights.size == network(spec.model).size
    assert not np.array_equal(weights, starting_weights(spec, None))


def reported(reports):
    """Return the reports as short texts: "epoch 1", "weights 1", or a state."""
    texts = []
    for report in reports:
        each = report.to_event()
        kind = each.WhichOneof("kind")
        if kind == "state_change":
            texts.append(JobState.Name(each.state_change.state).removeprefix("JOB_STATE_"))
        else:
            texts.append(f"{kind.replace('checkpoint', 'weights')} {getattr(each, kind).epoch}")
    return texts


def without_checkpoints_by_time(monkeypatch):
    monkeypatch.setattr("gradwire_worker.checkpoint_policy._MIN_INTERVAL_SECONDS", 3600.0)


def test_kept_epochs_are_reported_at_once_and_the_best_before_them(store, monkeypatch):
    without_checkpoints_by_time(monkeypatch)
    spec = make_spec(store, epochs=5)
    spec.keep.every = 2
    # The first epoch stays the best.
    spec.early_stopping.CopyFrom(EarlyStopping(monitor="train.loss", patience=5, min_delta=100.0, restore_best=True))
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    assert reported(run_to_end(trainer)) == [
        "RUNNING", "epoch 1", "epoch 2", "weights 1", "weights 2", "epoch 3", "epoch 4", "weights 4", "epoch 5",
        "weights 5", "SUCCEEDED",
    ]  # fmt: skip


def test_a_trainer_that_has_nothing_left_to_train_reports_the_weights_and_the_reason(store, monkeypatch):
    without_checkpoints_by_time(monkeypatch)
    spec = make_spec(store, epochs=9)
    weights = starting_weights(spec, None)
    resume = ResumePoint(4, bytes(wire_bytes(weights)))
    stopped = dataclasses.replace(
        assignment(store, spec, resume=resume), progress=Progress(epoch=4), stop_requested=True
    )
    trainer = Trainer()
    trainer.start(stopped)
    reports = run_to_end(trainer)
    assert reported(reports) == ["RUNNING", "weights 4", "SUCCEEDED"]
    assert reports[1].weights == bytes(wire_bytes(weights))
    assert reports[-1].to_event().state_change.stop_reason == StopReason.STOP_REASON_REQUESTED


def test_a_trainer_finishes_after_its_epoch_and_only_its_own_attempt(store, monkeypatch):
    without_checkpoints_by_time(monkeypatch)
    trainer = Trainer()
    trainer.finish("jobs/a", 1)  # It runs nothing yet.
    trainer.start(assignment(store, make_spec(store, epochs=10**6)))
    trainer.finish("jobs/a", 2)
    trainer.poll("jobs/a", 1, 0, 30)
    trainer.finish("jobs/a", 1)
    texts = reported(run_to_end(trainer))
    last = int(texts[-3].removeprefix("epoch "))
    assert texts[-2:] == [f"weights {last}", "SUCCEEDED"]
    assert last < 10**6


def test_a_trainer_whose_loss_is_not_finite_reports_the_best_weights_first(store, monkeypatch):
    without_checkpoints_by_time(monkeypatch)

    def diverging(*arguments, **options):
        yield from itertools.islice(train(*arguments, **options), 3)
        raise LossNotFiniteError(4, 0.1)

    monkeypatch.setattr("gradwire_worker.trainer.train", diverging)
    spec = make_spec(store, epochs=9)
    spec.early_stopping.CopyFrom(EarlyStopping(monitor="train.loss", patience=9, min_delta=100.0, restore_best=True))
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    assert reported(run_to_end(trainer)) == ["RUNNING", "epoch 1", "epoch 2", "epoch 3", "weights 1", "FAILED"]
