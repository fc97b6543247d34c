"""The messages between server and worker. An Assignment starts an attempt, and Reports describe its progress."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gradwire_engine.stopping import Progress
from gradwire_proto.v1.training_service_pb2 import Event


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint from which an attempt continues. `weights` is the flat weight vector, whose digest was checked."""

    epoch: int
    weights: bytes


@dataclass(frozen=True)
class Assignment:
    """One attempt of one job. While a worker runs an attempt, it rejects calls for other attempts."""

    job: str
    attempt: int
    # A serialized JobSpec, which is valid and resolved.
    spec: bytes
    # The number of epochs completed before the job started.
    initial_epoch: int
    # Whether epochs report classification metrics.
    classification: bool
    # The URL of the blob store.
    blobs: str
    resume: ResumePoint | None = None
    # The progress after the stored epochs. It can be ahead of the checkpoint to continue from.
    progress: Progress = field(default_factory=Progress)
    # Whether the job was stopped on request.
    stop_requested: bool = False


class Report(NamedTuple):
    """An event in an attempt. The reports of an attempt are numbered from 1, and polls acknowledge them by number."""

    sequence: int
    # A serialized Event. The server fills in the sequence number, time and attempt.
    event: bytes
    # The flat weight vector, if the event is a checkpoint.
    weights: bytes | None = None
    # A serialized ClassCounts, if the weights are kept and the job is a classifier.
    class_counts: bytes | None = None

    def to_event(self) -> Event:
        """Return the event."""
        return Event.FromString(self.event)


# The format in which reports are sent: the sequence number of the first report, the events, and a dict of weights and
# class counts, keyed by position. There can be ten thousand reports in a second, and plain bytes are the fastest to
# send.
PackedReports = tuple[int, list[bytes], dict[int, tuple[bytes, bytes | None]]]


def pack(reports: Sequence[Report]) -> PackedReports:
    """Pack reports with consecutive sequence numbers for sending."""
    weights = {
        place: (report.weights, report.class_counts)
        for place, report in enumerate(reports)
        if report.weights is not None
    }
    return (reports[0].sequence if reports else 0), [report.event for report in reports], weights


def unpack(packed: PackedReports) -> list[Report]:
    """Return the reports that `pack` packed."""
    first, events, weights = packed
    return [Report(first + place, event, *weights.get(place, ())) for place, event in enumerate(events)]
