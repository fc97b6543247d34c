"""A job's log: what its events are, what they make of the job, and whether two runs of an epoch are one."""

from gradwire_engine.spec.tensors import tensor_type
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import (
    Checkpoint,
    Epoch,
    Event,
    Job,
    JobError,
    JobState,
    JobWarning,
    StateChange,
)
from gradwire_server.storage.checkpoint_store import KEPT
from gradwire_server.store.queries import TERMINAL


def change(state: JobState, message: str = "") -> Event:
    """The job goes into a state."""
    return Event(state_change=StateChange(state=state, message=message))


def failure(reason: str, message: str) -> Event:
    """The job ends as FAILED."""
    error = JobError(reason=reason, message=message)
    return Event(state_change=StateChange(state=JobState.JOB_STATE_FAILED, message=message, error=error))


def warning(reason: str, message: str) -> Event:
    """Something that a user should know and that ends nothing."""
    return Event(warning=JobWarning(reason=reason, message=message))


def fold(job: Job, event: Event) -> None:
    """Bring the job's own fields up to its newest event."""
    kind = event.WhichOneof("kind")
    job.disk_usage.log_bytes += event.ByteSize()
    if kind == "epoch":
        job.last_epoch.CopyFrom(event.epoch)
    if kind == "checkpoint":
        kept = KEPT if job.disk_usage.checkpoint_bytes else 1
        job.disk_usage.checkpoint_bytes = kept * tensor_type(event.checkpoint.weights).size_bytes
    if kind != "state_change":
        return
    change = event.state_change
    job.state = change.state
    if change.state == JobState.JOB_STATE_STARTING and not job.HasField("start_time"):
        job.start_time.CopyFrom(event.time)
    if change.HasField("execution"):
        job.execution.CopyFrom(change.execution)
    if change.state in TERMINAL:
        job.end_time.CopyFrom(event.time)
        job.model = change.model
        if change.model:  # Its weights are the model's now.
            job.disk_usage.checkpoint_bytes = 0
        if change.HasField("error"):
            job.error.CopyFrom(change.error)


def difference(stored: Epoch, again: Epoch) -> str:
    """Return in what an epoch that was run again differs from the one that is stored, "" if in nothing."""
    if _outcome(stored) == _outcome(again):
        return ""
    return (
        f"epoch {stored.epoch} came out differently when it was run again: its running loss was "
        f"{stored.running_loss!r}, then {again.running_loss!r}"
    )


def _outcome(epoch: Epoch) -> tuple[float, bytes, bytes]:
    """What must be the same, to the bit, when an epoch is run again: all but its times."""
    return epoch.running_loss, epoch.train.SerializeToString(), epoch.test.SerializeToString()


def finished_model(job: Job, model_id: str, checkpoint: Checkpoint, now: int) -> Model:
    """Return the model of a job that has just succeeded; its weights are the last checkpoint's."""
    model = Model(
        name=f"models/{model_id}",
        job=job.name,
        spec=job.spec.model,
        weights=checkpoint.weights,
        train=job.spec.train,
        test=job.spec.test if job.spec.HasField("test") else None,
        last_epoch=job.last_epoch,
    )
    model.create_time.FromNanoseconds(now)
    return model
