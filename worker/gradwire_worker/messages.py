"""The messages between server and worker: an Assignment starts an attempt, Reports tell what happened in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gradwire_proto.v1.training_service_pb2 import Event


@dataclass(frozen=True)
class ResumePoint:
    """The weights after an epoch, from which an attempt continues: the bytes of the flat vector, already verified."""

    epoch: int
    weights: bytes


@dataclass(frozen=True)
class Assignment:
    """One attempt of one job. The worker refuses calls for any other attempt than the one that it runs."""

    job: str
    attempt: int
    # A serialized JobSpec, resolved and checked.
    spec: bytes
    # The number of epochs completed before the job started.
    initial_epoch: int
    # Whether epochs report accuracy.
    classification: bool
    # The URL of the blob store.
    blobs: str
    resume: ResumePoint | None = None


class Report(NamedTuple):
    """Something that happened. Reports of an attempt are numbered 1, 2, 3 and so on; a poll acknowledges by number."""

    sequence: int
    # A serialized Event without sequence, time and attempt, which the server sets.
    event: bytes
    # The flat vector after an epoch, with a checkpoint.
    weights: bytes | None = None

    def to_event(self) -> Event:
        """Return the event."""
        return Event.FromString(self.event)


# Reports as they are sent: the sequence number of the first one, the events, and the weights of those that have some,
# by position. There can be ten thousand in a second, and plain bytes are the fastest to send.
PackedReports = tuple[int, list[bytes], dict[int, bytes]]


def pack(reports: Sequence[Report]) -> PackedReports:
    """Pack reports with consecutive sequence numbers for sending."""
    weights = {place: report.weights for place, report in enumerate(reports) if report.weights is not None}
    return (reports[0].sequence if reports else 0), [report.event for report in reports], weights


def unpack(packed: PackedReports) -> list[Report]:
    """Return the reports that were packed."""
    first, events, weights = packed
    return [Report(first + place, event, weights.get(place)) for place, event in enumerate(events)]
