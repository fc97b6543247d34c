"""The parts of the worker, without Ray: the outbox, the checkpoint policy, the blob reader, and a local Trainer."""

import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest

from gradwire_engine import Linear, ReLU, Sequential
from gradwire_engine.spec.prepare import starting_weights
from gradwire_engine.spec.resolve import network, resolve
from gradwire_engine.spec.tensors import tensor_ref, wire_bytes
from gradwire_engine.spec.tracing import trace
from gradwire_proto.v1.errors_pb2 import JobErrorReason
from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobState, StateChange
from gradwire_worker.blob_reader import BlobLostError, BlobReader
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


def test_a_poll_waits_for_the_next_report():
    outbox = Outbox()
    thread = threading.Thread(target=lambda: outbox.add(event(1)))
    thread.start()
    assert sequences(outbox.take(0, timeout=30)) == [1]
    thread.join()


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
    thread = threading.Thread(target=lambda: outbox.add(event(3)))
    thread.start()
    assert sequences(outbox.take(0, timeout=0)) == [1, 2]
    assert outbox.take(2, timeout=30)[0].sequence == 3
    thread.join()


def test_training_does_not_wait_for_a_closed_outbox(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_UNACKNOWLEDGED", 0)
    outbox = Outbox()
    outbox.close()
    outbox.add(event(1))


def test_a_poll_returns_a_bounded_number_of_bytes(monkeypatch):
    monkeypatch.setattr("gradwire_worker.outbox._MAX_BYTES_PER_POLL", 100)
    outbox = Outbox()
    for number in range(3):
        outbox.add(event(number), weights=b"x" * 80)
    assert sequences(outbox.take(0, timeout=0)) == [1]
    assert sequences(outbox.take(1, timeout=0)) == [2]


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
    with pytest.raises(BlobLostError, match="is not in the store"):
        BlobReader(store.url).load(reference)


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
    assert kinds == ["state_change", "epoch", "epoch", "epoch", "checkpoint", "state_change"]
    assert [report.to_event().epoch.epoch for report in reports[1:4]] == [1, 2, 3]
    weights = reports[4]
    assert hashlib.sha256(weights.weights).hexdigest() == weights.to_event().checkpoint.weights.sha256
    assert reports[0].to_event().state_change.execution.plan


def test_a_trainer_continues_from_a_checkpoint_to_the_same_bits(store):
    spec = make_spec(store)
    whole, first, second = Trainer(), Trainer(), Trainer()
    whole.start(assignment(store, spec))
    expected = run_to_end(whole)
    short = make_spec(store, epochs=2)
    first.start(assignment(store, short))
    halfway = run_to_end(first)[-2]
    second.start(assignment(store, spec, 2, ResumePoint(halfway.to_event().checkpoint.epoch, halfway.weights)))
    resumed = run_to_end(second, attempt=2)
    assert resumed[1].to_event().epoch.running_loss == expected[3].to_event().epoch.running_loss
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
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0


def test_a_stopped_attempt_reports_nothing_more_and_another_attempt_is_refused(store):
    trainer = Trainer()
    trainer.start(assignment(store, make_spec(store, epochs=10**6)))
    trainer.poll("jobs/a", 1, 0, 30)
    trainer.stop("jobs/a", 1)
    trainer.start(assignment(store, make_spec(store), attempt=2))
    with pytest.raises(StaleAttemptError, match="attempt 1"):
        trainer.poll("jobs/a", 1, 0, 0)
    assert run_to_end(trainer, attempt=2)[-1].to_event().state_change.state == JobState.JOB_STATE_SUCCEEDED


def test_weights_have_the_layout_of_the_network(store):
    spec = make_spec(store)
    trainer = Trainer()
    trainer.start(assignment(store, spec))
    weights = np.frombuffer(run_to_end(trainer)[-2].weights, np.float32)
    assert weights.size == network(spec.model).size
    assert not np.array_equal(weights, starting_weights(spec, None))
