"""What goes in and out of a worker: an Assignment starts a job, Reports say what happened to it."""

from dataclasses import dataclass

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
    classification: bool
    # The blob store's URL.
    blobs: str
    resume: ResumePoint | None = None


@dataclass(frozen=True)
class Report:
    """One thing that happened. `sequence` counts 1, 2, 3, ... in the attempt; a poll names the last one that it has."""

    sequence: int
    # An Event message without sequence, time and attempt, which are the server's to give.
    event: bytes
    # The flat vector after an epoch, with a checkpoint and with success.
    weights: bytes | None = None

    def message(self) -> Event:
        """Return the event."""
        return Event.FromString(self.event)
