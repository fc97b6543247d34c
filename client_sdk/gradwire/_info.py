"""What the service says of jobs and models, as plain values for users."""

from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.training import Epoch
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import ModelSpec
from gradwire_proto.v1.training_service_pb2 import Event, Execution, Job, JobState

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Plan:
    """How and where a job runs: the plan's name and why it was taken, "cpu" or "gpu", the machine, the threads."""

    name: str
    reason: str
    device: str
    host: str
    threads: int


@dataclass(frozen=True)
class JobInfo:
    """A job as it stood when the service was asked. `state` is QUEUED, STARTING, RUNNING, PAUSED or one of ENDED."""

    name: str
    state: str
    layers: str
    epochs: int
    last_epoch: Epoch | None
    attempt: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    error: str
    model: str
    plan: Plan | None
    # What it takes of the service's disks, beside its data and its model.
    log_bytes: int = 0
    checkpoint_bytes: int = 0


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to a job. `kind` is state_change, epoch, checkpoint or warning; `text` is for people."""

    sequence: int
    time: datetime
    attempt: int
    kind: str
    text: str
    epoch: Epoch | None = None
    state: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """A trained model."""

    name: str
    job: str
    layers: str
    parameters: int
    weights_sha256: str
    last_epoch: Epoch
    created: datetime


def job_info(job: Job) -> JobInfo:
    """Return a job's message as values."""
    return JobInfo(
        name=job.name.removeprefix("jobs/"),
        state=_state(job.state),
        layers=_layers(job.spec.model),
        epochs=job.spec.epochs,
        last_epoch=epoch_of(job.last_epoch) if job.HasField("last_epoch") else None,
        attempt=job.attempt,
        created=_time(job.create_time),
        started=_time(job.start_time) if job.HasField("start_time") else None,
        ended=_time(job.end_time) if job.HasField("end_time") else None,
        error=job.error.message,
        model=job.model.removeprefix("models/"),
        plan=plan_of(job.execution) if job.HasField("execution") else None,
        log_bytes=job.disk_usage.log_bytes,
        checkpoint_bytes=job.disk_usage.checkpoint_bytes,
    )


def plan_of(execution: Execution) -> Plan:
    """Return an execution's message as values."""
    return Plan(execution.plan, execution.plan_reason, execution.device, execution.host, execution.threads)


def model_info(model: Model) -> ModelInfo:
    """Return a model's message as values."""
    return ModelInfo(
        name=model.name.removeprefix("models/"),
        job=model.job.removeprefix("jobs/"),
        layers=_layers(model.spec),
        parameters=model.weights.shape[0],
        weights_sha256=model.weights.sha256,
        last_epoch=epoch_of(model.last_epoch),
        created=_time(model.create_time),
    )


def job_event(event: Event) -> JobEvent:
    """Return an event's message as values."""
    kind = event.WhichOneof("kind") or "unknown"
    epoch = epoch_of(event.epoch) if kind == "epoch" else None
    state = _state(event.state_change.state) if kind == "state_change" else ""
    return JobEvent(event.sequence, _time(event.time), event.attempt, kind, _text(event, kind), epoch, state)


def epoch_text(epoch: Epoch) -> str:
    """Return an epoch as a line for people."""
    parts = [f"epoch {epoch.epoch}"]
    for name, metrics in (("train", epoch.train), ("test", epoch.test)):
        if metrics is None:
            continue
        parts.append(f"{name} loss {metrics.loss:.4f}")
        if metrics.accuracy is not None:
            parts.append(f"accuracy {metrics.accuracy:.4f}")
        elif metrics.mean_absolute_error is not None:
            parts.append(f"mae {metrics.mean_absolute_error:.4f}")
    if epoch.train is None:
        parts.append(f"running loss {epoch.running_loss:.4f}")
    return "  ".join([*parts, f"({epoch.seconds:.2f} s)"])


def _text(event: Event, kind: str) -> str:
    if kind == "epoch":
        return epoch_text(epoch_of(event.epoch))
    if kind == "checkpoint":
        return f"weights after epoch {event.checkpoint.epoch} stored"
    if kind == "warning":
        return f"{event.warning.reason}: {event.warning.message}"
    if kind != "state_change":
        return "something that this version of the SDK does not know"
    change = event.state_change
    parts = [_state(change.state)]
    if change.HasField("execution"):
        execution = change.execution
        parts.append(f"on {execution.host}, {execution.device}, plan {execution.plan} ({execution.plan_reason})")
    return " ".join([*parts, *([f"({change.message})"] if change.message else [])])


def _state(state: JobState) -> str:
    return JobState.Name(state).removeprefix("JOB_STATE_") if state in JobState.values() else f"STATE_{state}"


def _layers(spec: ModelSpec) -> str:
    """Return the widths, "64-32-10"."""
    linears = [layer.linear for layer in spec.layers if layer.WhichOneof("kind") == "linear"]
    return "-".join(str(width) for width in [linears[0].in_features, *(linear.out_features for linear in linears)])


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
