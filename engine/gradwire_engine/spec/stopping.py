"""Converts the early stopping parts of specs and jobs between messages and engine dataclasses."""

import math

from gradwire_engine.stopping import RUNNING_LOSS, Progress, StoppingRules, StopReason
from gradwire_proto.v1 import training_service_pb2
from gradwire_proto.v1.metrics_pb2 import Epoch
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import Job

_STOP_REASONS: dict[StopReason, training_service_pb2.StopReason] = {
    "ALL_EPOCHS": training_service_pb2.STOP_REASON_ALL_EPOCHS,
    "EARLY_STOPPING": training_service_pb2.STOP_REASON_EARLY_STOPPING,
    "TIME_LIMIT": training_service_pb2.STOP_REASON_TIME_LIMIT,
    "REQUESTED": training_service_pb2.STOP_REASON_REQUESTED,
}
_REGRESSION_METRICS = ("loss", "mean_absolute_error", "r2")
_CLASSIFICATION_METRICS = ("loss", "accuracy", "precision", "recall", "f1")


def default_monitor(spec: JobSpec) -> str:
    """Return the metric that determines the best epoch if the spec does not specify it."""
    return "test.loss" if spec.HasField("test") else "train.loss"


def monitors(spec: JobSpec, classification: bool) -> list[str]:
    """Return the metrics that the epochs of a job have.

    Args:
        spec: A valid spec.
        classification: Whether epochs report classification metrics; see `validation.is_classification`.
    """
    names = _CLASSIFICATION_METRICS if classification else _REGRESSION_METRICS
    sets = ["train", *(["test"] if spec.HasField("test") else [])]
    return [RUNNING_LOSS, *(f"{which}.{name}" for which in sets for name in names)]


def rules_of(spec: JobSpec) -> StoppingRules:
    """Return the stopping rules of a valid spec."""
    stops_early = spec.HasField("early_stopping")
    monitor = None
    if stops_early or spec.keep.best:
        monitor = spec.early_stopping.monitor or default_monitor(spec)
    return StoppingRules(
        epochs=spec.epochs,
        monitor=monitor,
        min_delta=spec.early_stopping.min_delta,
        patience=spec.early_stopping.patience if stops_early else None,
        restore_best=spec.early_stopping.restore_best,
        max_seconds=spec.max_seconds if spec.HasField("max_seconds") else None,
        keep_best=spec.keep.best,
        keep_every=spec.keep.every,
    )


def progress_of(job: Job, rules: StoppingRules) -> Progress:
    """Return the progress of a job as of its stored epochs."""
    progress = Progress(
        epoch=job.last_epoch.epoch,
        without_improvement=job.epochs_without_improvement,
        seconds=job.training_seconds,
    )
    if rules.monitor is None or not job.HasField("best_epoch"):
        return progress
    value = _value(job.best_epoch, rules.monitor)
    assert value is not None, "the best epoch was evaluated"
    return Progress(progress.epoch, job.best_epoch.epoch, value, progress.without_improvement, progress.seconds)


def progress_after(progress: Progress, epoch: Epoch, rules: StoppingRules) -> Progress:
    """Return the progress after the next epoch, as `Progress.after` does.

    The server calls this function for every epoch that it stores, so it does not convert the epoch.
    """
    value = None if rules.monitor is None else _value(epoch, rules.monitor)
    return progress.after_value(epoch.epoch, epoch.train_seconds + epoch.evaluate_seconds, value, rules)


def _value(epoch: Epoch, monitor: str) -> float | None:
    """Return the value of a metric in an epoch, as `stopping.monitored_value` does."""
    if monitor == RUNNING_LOSS:
        return epoch.running_loss
    which, _, name = monitor.partition(".")
    metrics = epoch.train if which == "train" else epoch.test
    if not epoch.HasField("train" if which == "train" else "test"):
        return None
    if name == "loss":  # This field has no presence.
        return metrics.loss
    value: float = getattr(metrics, name) if metrics.HasField(name) else math.nan
    return value


def stop_reason_value(reason: StopReason) -> training_service_pb2.StopReason:
    """Convert a stop reason to its enum value."""
    return _STOP_REASONS[reason]
