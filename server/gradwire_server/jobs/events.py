"""Creates the events of a job, and applies them to the job."""

from gradwire_engine.spec.resolve import weights_bytes
from gradwire_engine.spec.stopping import progress_after, progress_of, rules_of
from gradwire_engine.spec.tensors import tensor_type
from gradwire_proto.v1.errors_pb2 import JobErrorReason, JobWarningReason
from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Checkpoint, Event, Job, JobError, JobState, JobWarning, StateChange
from gradwire_server.storage.checkpoint_store import CHECKPOINTS_PER_JOB

TERMINAL_STATES = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED)


def has_ended(job: Job) -> bool:
    """Return whether the job is in a final state."""
    return job.state in TERMINAL_STATES


def state_name(job: Job) -> str:
    """Return the name of a state for messages, for example "RUNNING"."""
    return JobState.Name(job.state).removeprefix("JOB_STATE_")


def state_change(state: JobState, text: str = "") -> Event:
    """Return a state change event."""
    return Event(state_change=StateChange(state=state, message=text))


def failure(reason: JobErrorReason, text: str) -> Event:
    """Return a state change event for a failed job."""
    error = JobError(reason=reason, message=text)
    return Event(state_change=StateChange(state=JobState.JOB_STATE_FAILED, message=text, error=error))


def warning(reason: JobWarningReason, text: str) -> Event:
    """Return a warning event."""
    return Event(warning=JobWarning(reason=reason, message=text))


class JobUpdater:
    """Updates the fields of a job for its new events. It reads the job's stopping rules and progress only once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rules = rules_of(job.spec)
        self._progress = progress_of(job, self._rules)

    def apply(self, event: Event) -> None:
        """Update the job for its newest event."""
        job, kind = self._job, event.WhichOneof("kind")
        job.disk_usage.log_bytes += event.ByteSize()
        if kind == "epoch":
            self._apply_epoch(event.epoch)
        if kind == "checkpoint":
            _apply_checkpoint(event.checkpoint, job)
        if kind == "state_change":
            _apply_state_change(event, job)

    def _apply_epoch(self, epoch: Epoch) -> None:
        job = self._job
        self._progress = progress_after(self._progress, epoch, self._rules)
        job.training_seconds = self._progress.seconds
        if self._rules.monitor is not None:
            job.epochs_without_improvement = self._progress.without_improvement
            if self._progress.best_epoch == epoch.epoch:
                job.best_epoch.CopyFrom(epoch)
        job.last_epoch.CopyFrom(epoch)


def _apply_checkpoint(checkpoint: Checkpoint, job: Job) -> None:
    """Count the stored checkpoints: the kept epochs, and a few others."""
    size = tensor_type(checkpoint.weights).size_bytes
    kept = set(job.kept_epochs)
    others = job.disk_usage.checkpoint_bytes // size - len(kept)
    rules = rules_of(job.spec)
    if rules.needs_best and checkpoint.epoch == job.best_epoch.epoch:
        superseded = {epoch for epoch in kept if not rules.keeps_number(epoch)} - {checkpoint.epoch}
        others += len(superseded)
        kept = (kept - superseded) | {checkpoint.epoch}
    elif rules.keeps_number(checkpoint.epoch):
        kept.add(checkpoint.epoch)
    else:
        others += 1
    job.kept_epochs[:] = sorted(kept)
    job.disk_usage.checkpoint_bytes = (len(kept) + min(others, CHECKPOINTS_PER_JOB)) * size


def _apply_state_change(event: Event, job: Job) -> None:
    change = event.state_change
    job.state = change.state
    if change.state == JobState.JOB_STATE_STARTING and not job.HasField("start_time"):
        job.start_time.CopyFrom(event.time)
    if change.HasField("execution"):
        job.execution.CopyFrom(change.execution)
    if change.state in TERMINAL_STATES:
        job.end_time.CopyFrom(event.time)
        job.model = change.model
        job.stop_reason = change.stop_reason
        if change.model:
            job.kept_epochs[:] = sorted({*job.kept_epochs, job.last_epoch.epoch, model_epoch(job).epoch})
            # The weights of the model are now a blob that belongs to the model.
            others = len(job.kept_epochs) - 1
            job.disk_usage.checkpoint_bytes = others * weights_bytes(job.spec) if others else 0
        if change.HasField("error"):
            job.error.CopyFrom(change.error)


def log_line(job: Job, event: Event) -> str:
    """Return a job's state change and its reason as one line for the server log."""
    change = event.state_change
    parts = [f"{job.name}: {JobState.Name(change.state).removeprefix('JOB_STATE_')}"]
    if event.attempt and change.state in (JobState.JOB_STATE_STARTING, JobState.JOB_STATE_RUNNING):
        parts.append(f"attempt {event.attempt}")
    if change.HasField("execution"):
        parts.append(f"plan {change.execution.plan} on {change.execution.host} ({change.execution.device})")
    if change.state in TERMINAL_STATES:
        parts.append(f"after {job.last_epoch.epoch or job.initial_epoch} of {job.epochs} epochs")
    if change.HasField("error"):
        parts.append(JobErrorReason.Name(change.error.reason).removeprefix("JOB_ERROR_REASON_"))
    parts += (change.message or change.error.message).splitlines()[:1]
    return ", ".join(parts)


def difference(stored: Epoch, repeated: Epoch) -> str:
    """Describe how a repeated epoch differs from the stored epoch. Returns an empty string if they are the same."""
    if _result(stored) == _result(repeated):
        return ""
    return (
        f"epoch {stored.epoch} had a different result when it ran again: the running loss was "
        f"{stored.running_loss!r}, then {repeated.running_loss!r}"
    )


def _result(epoch: Epoch) -> tuple[float, bytes, bytes]:
    """Return the fields that must be bit-identical if an epoch is repeated. These are all fields except the times."""
    return epoch.running_loss, epoch.train.SerializeToString(), epoch.test.SerializeToString()


def model_epoch(job: Job) -> Epoch:
    """Return the epoch whose weights the model of a job has: the best one or the last one."""
    best = job.spec.early_stopping.restore_best and job.HasField("best_epoch")
    return job.best_epoch if best else job.last_epoch


def trained_model(job: Job, model_id: str, checkpoint: Checkpoint, now: int) -> Model:
    """Return the model of a successful job.

    Args:
        job: The job.
        model_id: The ID of the model.
        checkpoint: The checkpoint with the weights of the model.
        now: The time in nanoseconds since 1970.
    """
    model = Model(
        name=f"models/{model_id}",
        job=job.name,
        spec=job.spec.model,
        weights=checkpoint.weights,
        train=job.spec.train,
        test=job.spec.test if job.spec.HasField("test") else None,
        epoch=model_epoch(job),
        labels=job.labels,
        architecture=job.architecture,
    )
    model.create_time.FromNanoseconds(now)
    return model
