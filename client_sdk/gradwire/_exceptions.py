"""All exceptions that the SDK raises, in one hierarchy.

GradwireError
├── InvalidArgumentError (ValueError)      an argument is invalid; `violations` lists the fields
├── TraceError (TypeError)                 forward() does something that cannot be sent
├── FileError (ValueError)                 a data file or model file cannot be read or written
├── NotFoundError (LookupError)            no job or model has this name
├── AlreadyExistsError                     another job has this name
├── FailedPreconditionError                the call does not apply to the current state
├── OutOfRangeError                        a position is beyond the end
├── DataLossError                          bytes do not match their digest
├── ResourceExhaustedError                 the disk of the service is full
├── UnauthenticatedError                   the token is missing or wrong
├── UnavailableError (ConnectionError)     no server answers, or it is temporarily unavailable
├── DeadlineExceededError (TimeoutError)   the server did not answer or the job did not end in time
├── InternalError                          the service has a defect
├── JobFailedError                         the job ended as FAILED
└── JobCancelledError                      the job ended as CANCELLED
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradwire_engine.symbol import TraceError as EngineTraceError

if TYPE_CHECKING:
    from gradwire._history import History


class GradwireError(Exception):
    """The base class of all SDK exceptions.

    Attributes:
        reason: A stable name for use in programs, for example "JOB_NOT_FOUND" or "LOSS_NOT_FINITE", or None if the
            error did not come from a server. `ErrorReason` and `JobErrorReason` in errors.proto list the reasons.
        metadata: The names and numbers in the message, for example {"job": "jobs/digits"}.
        retry_after: The delay before a retry that the server suggests, in seconds, or None if it does not suggest one.

    GradwireError
    ├── InvalidArgumentError (ValueError)
    ├── TraceError (TypeError)
    ├── FileError (ValueError)
    ├── NotFoundError (LookupError)
    ├── AlreadyExistsError
    ├── FailedPreconditionError
    ├── OutOfRangeError
    ├── DataLossError
    ├── ResourceExhaustedError
    ├── UnauthenticatedError
    ├── UnavailableError (ConnectionError)
    ├── DeadlineExceededError (TimeoutError)
    ├── InternalError
    ├── JobFailedError
    └── JobCancelledError
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field.

    Attributes:
        field: The field's path in the request, for example "job.spec.train.targets".
        description: The problem with the field.
    """

    field: str
    description: str


class InvalidArgumentError(GradwireError, ValueError):
    """One or more arguments are invalid. `violations` lists the fields with their paths in the request."""

    def __init__(
        self,
        message: str,
        violations: Sequence[FieldViolation] = (),
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata, retry_after=retry_after)
        self.violations = tuple(violations)


class TraceError(GradwireError, EngineTraceError):
    """forward() does something that cannot be expressed as a stack of Linear and ReLU layers."""


class FileError(GradwireError, ValueError):
    """A data file or a model file cannot be read or written."""


class NotFoundError(GradwireError, LookupError):
    """No job or model has this name."""


class AlreadyExistsError(GradwireError):
    """Another job has this name."""


class FailedPreconditionError(GradwireError):
    """The call is not valid in the current state: a job has ended, a tensor is missing, or the cluster has no GPU."""


class OutOfRangeError(GradwireError):
    """A sequence number or an offset is beyond the end."""


class DataLossError(GradwireError):
    """Bytes do not match their digest."""


class ResourceExhaustedError(GradwireError):
    """A resource of the service is exhausted, for example disk space."""


class UnauthenticatedError(GradwireError):
    """The token is missing or wrong."""


class UnavailableError(GradwireError, ConnectionError):
    """No server answers at the address, or the server is temporarily unavailable."""


class DeadlineExceededError(GradwireError, TimeoutError):
    """The server did not answer, or the job did not end, within the timeout."""


class InternalError(GradwireError):
    """The service has a defect. The server log contains the cause."""


class JobFailedError(GradwireError):
    """The job failed. The message states the epoch, the cause, and what to try.

    Attributes:
        job: The job's name, or None if it ran in this process.
        reason: The reason for the failure, for example "LOSS_NOT_FINITE".
        history: The epochs before the failure.
    """

    def __init__(
        self,
        message: str,
        *,
        job: str | None = None,
        reason: str | None = None,
        history: History | None = None,
    ) -> None:
        super().__init__(message, reason=reason)
        self.job = job
        self.history = history


class JobCancelledError(GradwireError):
    """The job was cancelled.

    Attributes:
        job: The job's name.
        history: The epochs before the cancellation.
    """

    def __init__(self, message: str, *, job: str | None = None, history: History | None = None) -> None:
        super().__init__(message)
        self.job = job
        self.history = history
