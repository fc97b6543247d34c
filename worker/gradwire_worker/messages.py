"""What goes in and out of a worker: an Assignment starts a job, Reports say what happened to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gradwire_proto.v1.training_service_pb2 import Event


@dataclass(frozen=True)
class ResumePoint:
    """The weights after an epoch, with which an attempt goes on: the flat vector's bytes, already checked."""

    epoch: int
    weights: bytes


@dataclass(frozen=True)
class Assignment:
    """One attempt of one job. `attempt` is the fencing token: a worker answers only to the attempt that it runs."""

    job: str
    attempt: int
    # A resolved, checked JobSpec, serialized, and whether its epochs report accuracy.
    spec: bytes
    # The epochs completed before the job started.
    initial_epoch: int
    classification: bool
    # The blob store's URL.
    blobs: str
    resume: ResumePoint | None = None


class Report(NamedTuple):
    """One thing that happened. `sequence` counts 1, 2, 3, ... in the attempt; a poll names the last one that it has."""

    sequence: int
    # An Event message without sequence, time and attempt, which are the server's to give.
    event: bytes
    # The flat vector after an epoch, with a checkpoint and with success.
    weights: bytes | None = None

    def to_event(self) -> Event:
        """Return the event."""
        return Event.FromString(self.event)


# Reports on their way from a worker to the server: the first one's sequence number, the events, and by their place the
# weights of those that have some. There can be ten thousand a second, and plain bytes travel fastest.
PackedReports = tuple[int, list[bytes], dict[int, bytes]]


def pack(reports: Sequence[Report]) -> PackedReports:
    """Make reports, whose numbers follow each other, ready to travel."""
    weights = {place: report.weights for place, report in enumerate(reports) if report.weights is not None}
    return (reports[0].sequence if reports else 0), [report.event for report in reports], weights


def unpack(packed: PackedReports) -> list[Report]:
    """Return the reports that `pack` was given."""
    first, events, weights = packed
    return [Report(first + place, event, weights.get(place)) for place, event in enumerate(events)]
