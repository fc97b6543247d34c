"""Converts epochs, metrics, class counts and executions between engine dataclasses and messages."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Literal

from gradwire_engine.backend import processor_model, thread_count
from gradwire_engine.classification import ClassificationReport, class_reports
from gradwire_engine.metrics import Metrics
from gradwire_engine.training import Epoch
from gradwire_proto.v1.metrics_pb2 import ClassCounts as ClassCountsMessage
from gradwire_proto.v1.metrics_pb2 import Epoch as EpochMessage
from gradwire_proto.v1.metrics_pb2 import EvaluationSet
from gradwire_proto.v1.metrics_pb2 import Metrics as MetricsMessage
from gradwire_proto.v1.training_service_pb2 import Execution

if TYPE_CHECKING:  # Clients read epochs without loading the plans.
    from gradwire_engine.class_counts import ClassCounts
    from gradwire_engine.plans import ChosenPlan


def epoch_message(epoch: Epoch) -> EpochMessage:
    """Convert an epoch to a message."""
    return EpochMessage(
        epoch=epoch.epoch,
        running_loss=epoch.running_loss,
        train=_metrics_message(epoch.train),
        test=_metrics_message(epoch.test),
        train_seconds=epoch.train_seconds,
        evaluate_seconds=epoch.evaluate_seconds,
    )


def epoch_of(message: EpochMessage) -> Epoch:
    """Convert a message to an epoch."""
    return Epoch(
        epoch=message.epoch,
        running_loss=message.running_loss,
        train=_metrics_of(message.train) if message.HasField("train") else None,
        test=_metrics_of(message.test) if message.HasField("test") else None,
        train_seconds=message.train_seconds,
        evaluate_seconds=message.evaluate_seconds,
    )


def class_counts_message(counts: ClassCounts, evaluated_on: EvaluationSet, epoch: int) -> ClassCountsMessage:
    """Convert class counts to a message without names of classes."""
    return ClassCountsMessage(
        evaluated_on=evaluated_on,
        epoch=epoch,
        actual=counts.actual.tolist(),
        predicted=counts.predicted.tolist(),
        correct=counts.correct.tolist(),
        confusion=[] if counts.confusion is None else counts.confusion.ravel().tolist(),
    )


def class_names_of(message: ClassCountsMessage) -> list[str]:
    """Return the names of the classes, or their indices as text."""
    return list(message.class_names) or list(map(str, range(len(message.actual))))


def evaluated_on_of(message: ClassCountsMessage) -> Literal["test", "train"]:
    """Return the name of the data set that was counted."""
    return "test" if message.evaluated_on == EvaluationSet.EVALUATION_SET_TEST else "train"


def classification_report_of(message: ClassCountsMessage) -> ClassificationReport:
    """Convert class counts to the metrics of each class."""
    reports = class_reports(class_names_of(message), message.correct, message.predicted, message.actual)
    return ClassificationReport(reports, evaluated_on_of(message), message.epoch)


def execution_message(chosen: ChosenPlan) -> Execution:
    """Return a message that describes the plan, device, host and threads of a job in this process."""
    return Execution(
        plan=chosen.plan.name,
        plan_reason=chosen.reason,
        device=chosen.device,
        host=f"{platform.node()}, {chosen.device_name or processor_model()}",
        threads=thread_count(),
    )


def host_name(execution: Execution) -> str:
    """Return the host name in the description of a machine that `execution_message` writes."""
    return execution.host.partition(",")[0]


def _metrics_message(metrics: Metrics | None) -> MetricsMessage | None:
    # The fields have the same names. This uses vars() because asdict() would make deep copies.
    return None if metrics is None else MetricsMessage(**vars(metrics))


def _metrics_of(message: MetricsMessage) -> Metrics:
    # ListFields omits a loss of 0, because the field has no presence.
    present = {field.name: value for field, value in message.ListFields()}
    return Metrics(**{"loss": 0.0, **present})
