"""The actor, which starts and stops jobs and returns their reports. Training runs in a thread, one job at a time."""

import logging
import os
import threading
import time

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.plans import ForcedPlanError, NoGpuError, warm_up
from gradwire_engine.spec.messages import epoch_message, execution_message
from gradwire_engine.spec.prepare import JobData, PreparedJob, prepare
from gradwire_engine.spec.stopping import rules_of, stop_reason_value
from gradwire_engine.spec.tensors import numpy_dtype, tensor_ref, wire_bytes
from gradwire_engine.stopping import TrainingControl
from gradwire_engine.training import LossNotFiniteError, StoppedError, train
from gradwire_proto.v1.errors_pb2 import JobErrorReason, JobWarningReason
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, JobError, JobState, JobWarning, StateChange
from gradwire_worker.blob_reader import BlobLostError, BlobReader
from gradwire_worker.checkpoint_policy import CheckpointPolicy
from gradwire_worker.log_tail import own_log
from gradwire_worker.memory_limit import limit_memory
from gradwire_worker.messages import Assignment, PackedReports, pack
from gradwire_worker.outbox import Outbox

_log = logging.getLogger(__name__)


class StaleAttemptError(RuntimeError):
    """The call is for an attempt that is not running on this worker."""


class Trainer:
    """Runs one attempt at a time. `start` stops the previous attempt if it is still running."""

    def __init__(self, abandoned_seconds: float | None = None, memory: int = 0) -> None:
        """Load and compile the plans, and watch for server calls.

        Args:
            abandoned_seconds: The time without a server call after which this process exits, in seconds. If it is
                None, the process does not exit.
            memory: The additional memory that attempts can use in this process, in bytes. If it is 0, there is no
                limit.
        """
        self._called = time.monotonic()
        if abandoned_seconds is not None:
            watch = threading.Thread(target=self._end_when_abandoned, args=(abandoned_seconds,), daemon=True)
            watch.start()
        # Load and compile the plans now, so that jobs do not have to wait for it.
        warm_up()
        if memory:
            limit_memory(memory)
        # Held by `start` and `stop`: calls run in several threads, and a stop can overtake the start of its attempt.
        self._switching = threading.Lock()
        self._run: _Run | None = None
        # Attempts whose stop arrived before their start.
        self._stopped: set[tuple[str, int]] = set()
        self._readers: dict[str, BlobReader] = {}

    def ping(self) -> None:
        """Return, to show that this worker is alive, and record that a server still needs it."""
        self._called = time.monotonic()

    def own_log(self) -> tuple[str, str]:
        """Return the ID of this worker's node, and the path of the worker's log on that node."""
        return own_log()

    def can_read(self, blobs: str, probe: str) -> bool:
        """Return whether this worker can read the blob store at a URL.

        Args:
            blobs: The URL of the blob store.
            probe: The digest of a blob that is in the store.
        """
        return self._reader(blobs).has(probe)

    def start(self, assignment: Assignment, tensors: dict[str, Array] | None = None) -> None:
        """Start an attempt.

        Args:
            assignment: The attempt.
            tensors: The tensors of the job, keyed by digest. They are needed if this worker cannot read the blob store.

        Raises:
            StaleAttemptError: The attempt was stopped before this call arrived.
        """
        self._called = time.monotonic()
        with self._switching:
            if (assignment.job, assignment.attempt) in self._stopped:
                self._stopped.remove((assignment.job, assignment.attempt))
                raise StaleAttemptError(f"attempt {assignment.attempt} of {assignment.job} was stopped")
            if self._run is not None:
                self._run.stop()
                self._run.join()
            self._run = _Run(assignment, self._reader(assignment.blobs), tensors or {})
            self._run.start()

    def start_and_poll(self, assignment: Assignment, tensors: dict[str, Array] | None, timeout: float) -> PackedReports:
        """Start an attempt and return its first reports, in one call."""
        self.start(assignment, tensors)
        return self.poll(assignment.job, assignment.attempt, 0, timeout)

    def running(self) -> tuple[str, int] | None:
        """Return the job and attempt number of the last attempt. A server that takes over uses them."""
        return None if self._run is None else (self._run.assignment.job, self._run.assignment.attempt)

    def poll(self, job: str, attempt: int, after: int, timeout: float) -> PackedReports:
        """Acknowledge the reports of an attempt up to `after` and return the next reports.

        Args:
            job: The job.
            attempt: The attempt number.
            after: The sequence number of the last report to acknowledge, or 0.
            timeout: The maximum time to wait for a report, in seconds.

        Raises:
            StaleAttemptError: This worker is not running the attempt.
        """
        return pack(self._current(job, attempt).outbox.take(after, timeout))

    def stop(self, job: str, attempt: int) -> None:
        """Stop an attempt, which takes about a tenth of a second plus one training step. It sends no more reports.

        If its `start` has not arrived yet, it is rejected when it does.
        """
        self._called = time.monotonic()
        with self._switching:
            if self._run is None or self.running() != (job, attempt):
                self._stopped.add((job, attempt))
                return
            self._run.stop()
            self._run.join()

    def finish(self, job: str, attempt: int) -> None:
        """End the job of an attempt after its current epoch. If the attempt is not running, do nothing."""
        self._called = time.monotonic()
        run = self._run
        if run is not None and self.running() == (job, attempt):
            run.finish()

    def _end_when_abandoned(self, seconds: float) -> None:
        while time.monotonic() - self._called < seconds:
            time.sleep(seconds / 10)
        _log.warning("no server has called for %.0f s, so this worker ends", seconds)
        os._exit(0)  # A thread cannot end its actor in any other way.

    def _current(self, job: str, attempt: int) -> "_Run":
        self._called = time.monotonic()
        run = self._run
        if run is None or (run.assignment.job, run.assignment.attempt) != (job, attempt):
            raise StaleAttemptError(f"this worker does not run attempt {attempt} of {job}")
        return run

    def _reader(self, url: str) -> BlobReader:
        if url not in self._readers:
            self._readers[url] = BlobReader(url)
        return self._readers[url]


class _Run(threading.Thread):
    """A thread that runs one attempt, from loading the data to the last report."""

    def __init__(self, assignment: Assignment, reader: BlobReader, tensors: dict[str, Array]) -> None:
        super().__init__(name=f"{assignment.job} attempt {assignment.attempt}", daemon=True)
        self.assignment = assignment
        self.outbox = Outbox()
        self._reader = reader
        self._tensors = tensors
        self._stopping = threading.Event()
        self._finishing = threading.Event()
        if assignment.stop_requested:
            self._finishing.set()
        self._spec = JobSpec.FromString(assignment.spec)

    def stop(self) -> None:
        """Request that training stop."""
        self._stopping.set()
        self.outbox.close()

    def finish(self) -> None:
        """Request that the job end after the current epoch."""
        self._finishing.set()

    def run(self) -> None:
        try:
            self._train()
        except StoppedError:
            return
        except LossNotFiniteError as error:
            self._fail(JobErrorReason.JOB_ERROR_REASON_LOSS_NOT_FINITE, str(error))
        except BlobLostError as error:
            self._fail(
                JobErrorReason.JOB_ERROR_REASON_DATA_LOST,
                f"{error}. Upload the data and submit the job again",
            )
        except (NoGpuError, ForcedPlanError) as error:
            self._fail(JobErrorReason.JOB_ERROR_REASON_WORKER_ERROR, str(error))
        except MemoryError as error:
            self._fail(
                JobErrorReason.JOB_ERROR_REASON_OUT_OF_MEMORY,
                f"{error}. Use a smaller model, or a worker with more memory",
            )
        except Exception as error:
            # Whatever happens, the job must end with an error message.
            _log.exception("%s failed", self.name)
            self._fail(
                JobErrorReason.JOB_ERROR_REASON_WORKER_ERROR, f"the worker failed: {type(error).__name__}: {error}"
            )

    def _train(self) -> None:
        job = self._prepare()
        running = StateChange(state=JobState.JOB_STATE_RUNNING, execution=execution_message(job.chosen))
        self.outbox.add(Event(state_change=running))
        if job.chosen.warning:
            self.outbox.add(
                Event(
                    warning=JobWarning(
                        reason=JobWarningReason.JOB_WARNING_REASON_PLAN_FALLBACK, message=job.chosen.warning
                    )
                )
            )
        self._train_epochs(job)

    def _train_epochs(self, job: PreparedJob) -> None:
        """Train until the last epoch or until a stopping rule applies, and report the weights."""
        plan, policy, resume = job.chosen.plan, CheckpointPolicy(), self.assignment.resume
        control = TrainingControl(rules_of(self._spec), self.assignment.progress)
        number = resume.epoch if resume else self.assignment.initial_epoch
        epochs = train(
            plan,
            job.config,
            job.train_set,
            job.test_set,
            initial_epoch=number,
            should_stop=self._stopping.is_set,
        )
        reason = control.stop_reason(number, requested=self._finishing.is_set())
        try:
            while reason is None:
                epoch = next(epochs)
                number = epoch.epoch
                self.outbox.add(Event(epoch=epoch_message(epoch)))
                control.add(epoch, plan.weights)
                reason = control.stop_reason(number, requested=self._finishing.is_set())
                if reason is None and (policy.is_due() or control.rules.keeps_number(number)):
                    started = time.perf_counter()
                    self._report_best(control, before=number)
                    self._report_weights(number, plan.weights())
                    policy.record(time.perf_counter() - started)
        except LossNotFiniteError:
            self._report_best(control)
            raise
        self._report_best(control, before=number)
        self._report_weights(number, plan.weights())
        succeeded = StateChange(state=JobState.JOB_STATE_SUCCEEDED, stop_reason=stop_reason_value(reason))
        self.outbox.add(Event(state_change=succeeded))

    def _report_best(self, control: TrainingControl, before: int | None = None) -> None:
        """Report the weights of the best epoch, if they have not been reported yet.

        They are reported before the weights of a later epoch, because an attempt that continues from the later epoch
        does not compute them again.

        Args:
            control: The control that holds the weights.
            before: An epoch whose weights are reported next. If it is the best epoch, its weights are reported once.
        """
        best = control.take_best()
        if best is not None and best[0] != before:
            self._report_weights(*best)

    def _prepare(self) -> PreparedJob:
        spec, resume = self._spec, self.assignment.resume
        data = JobData(
            train=self._load_set(spec.train),
            test=self._load_set(spec.test) if spec.HasField("test") else None,
            given_weights=self._load(spec.initial_weights) if spec.HasField("initial_weights") else None,
        )
        weights = np.frombuffer(resume.weights, numpy_dtype(spec.dtype)) if resume else None
        return prepare(spec, data, self.assignment.classification, weights)

    def _load_set(self, dataset: Dataset) -> tuple[Array, Array]:
        return self._load(dataset.inputs), self._load(dataset.targets)

    def _load(self, reference: TensorRef) -> Array:
        if reference.sha256 in self._tensors:
            array = self._tensors[reference.sha256]
            return array.view(numpy_dtype(reference.dtype)).reshape(tuple(reference.shape))
        return self._reader.load(reference)

    def _report_weights(self, epoch: int, weights: Array) -> None:
        checkpoint = Checkpoint(epoch=epoch, weights=tensor_ref(weights))
        self.outbox.add(Event(checkpoint=checkpoint), bytes(wire_bytes(weights)))

    def _fail(self, reason: JobErrorReason, text: str) -> None:
        error = JobError(reason=reason, message=text)
        self.outbox.add(Event(state_change=StateChange(state=JobState.JOB_STATE_FAILED, error=error, message=text)))
