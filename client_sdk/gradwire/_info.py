"""Dataclasses that describe jobs, events, models and tensors to users."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from gradwire._types import EventKind, JobState, StopReason
from gradwire_engine.formatting import number_text, seconds_text
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.training import Epoch
from gradwire_proto.v1 import errors_pb2, training_service_pb2
from gradwire_proto.v1.tensor_service_pb2 import StoredTensor

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from gradwire_proto.v1.model_service_pb2 import Model
    from gradwire_proto.v1.training_service_pb2 import Event, Execution, Job

ENDED: tuple[JobState, ...] = ("SUCCEEDED", "FAILED", "CANCELLED")


@dataclass(frozen=True)
class Plan:
    """The plan and the machine of a job.

    Attributes:
        name: The name of the plan, for example "compiled".
        reason: The reason for choosing this plan.
        device: "cpu" or "gpu".
        host: The machine and its processor or GPU.
        threads: The number of threads.
    """

    name: str
    reason: str
    device: str
    host: str
    threads: int


@dataclass(frozen=True, repr=False)
class JobInfo:
    """The description of a job at the time of a server response.

    Attributes:
        name: The job's name, for example "digits".
        state: The state. The last three of QUEUED, STARTING, RUNNING, PAUSED, SUCCEEDED, FAILED and CANCELLED are
            final.
        architecture: The widths of the model, for example "784-128-32-10".
        epochs: The number of epochs in total.
        initial_epoch: The number of epochs completed before the job started. It is 0 unless the job continues another
            job.
        last_epoch: The latest epoch, or None before the first epoch.
        attempt: The number of the current attempt, or 0 before the first attempt.
        created: The time at which the job was created.
        started: The time at which the first attempt started, if it has started.
        ended: The time at which the job ended, if it has ended.
        error: The error message if the job failed, otherwise None.
        error_reason: The error reason as a stable name, for example "LOSS_NOT_FINITE".
        model: The name of the trained model, if the job succeeded.
        plan: The plan and the machine of the last attempt, or None before the first attempt runs.
        labels: The job's labels.
        log_bytes: The size of the job's events on the service's disk.
        checkpoint_bytes: The size of the job's checkpoints on the service's disk.
        stop_reason: Why the job ended, if it succeeded: "ALL_EPOCHS", "EARLY_STOPPING", "TIME_LIMIT" or "REQUESTED".
        stop_requested: The time at which `job.stop()` was called, if it was called.
        best_epoch: The best epoch so far, with early_stopping or keep="best".
        epochs_without_improvement: The number of epochs in a row without an improvement, with early_stopping.
        kept_epochs: The epochs whose weights the server keeps. Empty for a job in a list.
        training_seconds: The time spent on training and evaluating, in seconds.
    """

    name: str
    state: JobState
    architecture: str
    epochs: int
    initial_epoch: int
    last_epoch: Epoch | None
    attempt: int
    created: datetime
    started: datetime | None
    ended: datetime | None
    error: str | None
    error_reason: str | None
    model: str | None
    plan: Plan | None
    labels: dict[str, str] = field(default_factory=dict)
    log_bytes: int = 0
    checkpoint_bytes: int = 0
    stop_reason: StopReason | None = None
    stop_requested: datetime | None = None
    best_epoch: Epoch | None = None
    epochs_without_improvement: int = 0
    kept_epochs: tuple[int, ...] = ()
    training_seconds: float = 0.0

    @property
    def epochs_done(self) -> int:
        """The number of the last reported epoch or, before the first one, the value of `initial_epoch`."""
        return self.last_epoch.epoch if self.last_epoch else self.initial_epoch

    def __repr__(self) -> str:
        return f"JobInfo({self.name!r}, {self.state}, epoch {self.epochs_done}/{self.epochs})"

    def _repr_html_(self) -> str:
        from gradwire._notebook import job_html  # noqa: PLC0415  (only for notebooks)

        return job_html(self)


@dataclass(frozen=True)
class JobEvent:
    """An event in the log of a job.

    Attributes:
        sequence: The number of the event in the log: 1, 2, 3 and so on.
        time: The time of the event.
        attempt: The attempt that the event belongs to, or 0 before the first attempt.
        kind: "state_change", "epoch", "checkpoint" or "warning".
        text: A description of the event.
        epoch: The epoch, if the kind is "epoch".
        state: The new state, if the kind is "state_change".
        reason: The reason for a warning or a failure, as a stable name, for example "WORKER_LOST".
    """

    sequence: int
    time: datetime
    attempt: int
    kind: EventKind
    text: str
    epoch: Epoch | None = None
    state: JobState | None = None
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class ModelInfo:
    """A trained model.

    Attributes:
        name: The model's name, the same as the name of the job that trained it.
        job: The name of the job that trained the model.
        architecture: The widths of the model, for example "784-128-32-10".
        parameters: The number of weights and biases.
        weights_sha256: The digest of the flat vector of all parameters.
        epoch: The epoch after which the weights were stored.
        created: The time at which the model was stored.
        labels: The job's labels.
        class_names: The names of the classes, in the order of the outputs. It is empty if the classes have no names,
            and for models in a list.
    """

    name: str
    job: str
    architecture: str
    parameters: int
    weights_sha256: str
    epoch: Epoch
    created: datetime
    labels: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        quality = quality_text(self.epoch)
        return f"ModelInfo({self.name!r}, {self.architecture}, {self.parameters} parameters, {quality})"

    def _repr_html_(self) -> str:
        from gradwire._notebook import models_html  # noqa: PLC0415  (only for notebooks)

        return models_html([self])


@dataclass(frozen=True)
class TensorInfo:
    """An array on the server.

    Attributes:
        sha256: The digest of the array's elements.
        dtype: The dtype, for example "float32".
        shape: The sizes of the dimensions.
    """

    sha256: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredTensorInfo:
    """The elements of an array, as a server stores them. The jobs that use them determine the dtype and the shape.

    Attributes:
        sha256: The digest of the elements.
        size: Their size in bytes.
        used: The approximate time of their last use.
        referenced: Whether a job or a model uses them. If so, they cannot be deleted.
    """

    sha256: str
    size: int
    used: datetime
    referenced: bool


def stored_tensor_info(tensor: StoredTensor) -> StoredTensorInfo:
    """Convert a tensor message to a StoredTensorInfo."""
    sha256 = tensor.name.removeprefix("tensors/")
    return StoredTensorInfo(sha256, tensor.size_bytes, _time(tensor.use_time), tensor.referenced)


def job_info(job: Job) -> JobInfo:
    """Convert a job message to a JobInfo."""
    failed = job.HasField("error")
    return JobInfo(
        name=job.name.removeprefix("jobs/"),
        state=state_of(job.state),
        architecture=job.architecture,
        epochs=job.epochs,
        initial_epoch=job.initial_epoch,
        last_epoch=epoch_of(job.last_epoch) if job.HasField("last_epoch") else None,
        attempt=job.attempt,
        created=_time(job.create_time),
        started=_time(job.start_time) if job.HasField("start_time") else None,
        ended=_time(job.end_time) if job.HasField("end_time") else None,
        error=job.error.message if failed else None,
        error_reason=_job_error_reason(job.error.reason) if failed else None,
        model=job.model.removeprefix("models/") or None,
        plan=plan_of(job.execution) if job.HasField("execution") else None,
        labels=dict(job.labels),
        log_bytes=job.disk_usage.log_bytes,
        checkpoint_bytes=job.disk_usage.checkpoint_bytes,
        stop_reason=stop_reason_of(job.stop_reason),
        stop_requested=_time(job.stop_request_time) if job.HasField("stop_request_time") else None,
        best_epoch=epoch_of(job.best_epoch) if job.HasField("best_epoch") else None,
        epochs_without_improvement=job.epochs_without_improvement,
        kept_epochs=tuple(job.kept_epochs),
        training_seconds=job.training_seconds,
    )


def plan_of(execution: Execution) -> Plan:
    """Convert an execution message to a Plan."""
    return Plan(execution.plan, execution.plan_reason, execution.device, execution.host, execution.threads)


def model_info(model: Model) -> ModelInfo:
    """Convert a model message to a ModelInfo."""
    return ModelInfo(
        name=model.name.removeprefix("models/"),
        job=model.job.removeprefix("jobs/"),
        architecture=model.architecture,
        parameters=model.weights.shape[0],
        weights_sha256=model.weights.sha256,
        epoch=epoch_of(model.epoch),
        created=_time(model.create_time),
        labels=dict(model.labels),
        class_names=tuple(model.spec.class_names),
    )


def job_event(event: Event) -> JobEvent:
    """Convert an event message to a JobEvent."""
    kind = cast(EventKind, event.WhichOneof("kind") or "unknown")
    values = (event.sequence, _time(event.time), event.attempt, kind)
    if kind == "epoch":
        epoch = epoch_of(event.epoch)
        return JobEvent(*values, epoch_text(epoch), epoch=epoch)
    if kind == "checkpoint":
        return JobEvent(*values, f"stored the weights after epoch {event.checkpoint.epoch}")
    if kind == "warning":
        warned = _warning_reason(event.warning.reason)
        return JobEvent(*values, f"{warned}: {event.warning.message}", reason=warned)
    if kind == "state_change":
        change = event.state_change
        reason = _job_error_reason(change.error.reason) if change.HasField("error") else None
        return JobEvent(*values, _change_text(event), state=state_of(change.state), reason=reason)
    return JobEvent(*values, "an event that this version of gradwire does not know")


def epoch_text(epoch: Epoch) -> str:
    """Return an epoch as a readable line."""
    parts = [f"epoch {epoch.epoch}"]
    for name, metrics in (("train", epoch.train), ("test", epoch.test)):
        if metrics is None:
            continue
        parts.append(f"{name} loss {number_text(metrics.loss)}")
        if metrics.accuracy is not None:
            parts.append(f"accuracy {number_text(metrics.accuracy)}")
        elif metrics.mean_absolute_error is not None:
            parts.append(f"mae {number_text(metrics.mean_absolute_error)}")
    if epoch.train is None:
        parts.append(f"running loss {number_text(epoch.running_loss)}")
    return "  ".join([*parts, f"({seconds_text(epoch.seconds)})"])


def quality_text(epoch: Epoch) -> str:
    """Return the most important metric of an epoch as text, for example "test accuracy 0.97"."""
    for name, metrics in (("test", epoch.test), ("train", epoch.train)):
        if metrics is None:
            continue
        if metrics.accuracy is not None:
            return f"{name} accuracy {metrics.accuracy:.4g}"
        if metrics.r2 is not None:
            return f"{name} R2 {metrics.r2:.4g}"
        return f"{name} loss {metrics.loss:.4g}"
    return f"running loss {epoch.running_loss:.4g}"


def state_of(state: training_service_pb2.JobState) -> JobState:
    """Return the name of a state."""
    known = training_service_pb2.JobState
    name = known.Name(state).removeprefix("JOB_STATE_") if state in known.values() else "UNKNOWN"
    return cast(JobState, "UNKNOWN" if name == "UNSPECIFIED" else name)


def stop_reason_of(reason: training_service_pb2.StopReason) -> StopReason | None:
    """Return why a job ended, or None if it has not succeeded."""
    if not reason:
        return None
    known = training_service_pb2.StopReason
    return cast(StopReason, known.Name(reason).removeprefix("STOP_REASON_") if reason in known.values() else "UNKNOWN")


def _change_text(event: Event) -> str:
    change = event.state_change
    parts: list[str] = [state_of(change.state)]
    if change.HasField("execution"):
        execution = change.execution
        parts.append(f"on {execution.host}, {execution.device}, plan {execution.plan} ({execution.plan_reason})")
    if change.stop_reason:
        parts.append(f"({stop_reason_of(change.stop_reason)})")
    message = change.message or change.error.message
    return " ".join([*parts, *([f"({message})"] if message else [])])


def _job_error_reason(reason: errors_pb2.JobErrorReason) -> str:
    known = errors_pb2.JobErrorReason
    return known.Name(reason).removeprefix("JOB_ERROR_REASON_") if reason in known.values() else f"REASON_{reason}"


def _warning_reason(reason: errors_pb2.JobWarningReason) -> str:
    known = errors_pb2.JobWarningReason
    return known.Name(reason).removeprefix("JOB_WARNING_REASON_") if reason in known.values() else f"REASON_{reason}"


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
