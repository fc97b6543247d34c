"""Every error that a client can get, made in one place, with google.rpc details."""

from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "gradwire.dev"
# The reason of the error that work which can wait waits out.
DISK_FULL = "DISK_FULL"


class ServiceError(Exception):
    """An error for the client: a status code, a message for people, a stable reason and details for programs."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.details = (ErrorInfo(reason=reason, domain=DOMAIN), *details)

    def status(self) -> Status:
        """Return the google.rpc.Status to send."""
        number, _ = self.code.value
        status = Status(code=number, message=self.message)
        for detail in self.details:
            status.details.add().Pack(detail)
        return status


def invalid_argument(violations: Sequence[tuple[str, str]]) -> ServiceError:
    """Fields of a request are wrong: (path, what to do) for each."""
    detail = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=field, description=description) for field, description in violations
        ]
    )
    message = "; ".join(f"{field} {description}" for field, description in violations)
    return ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", message, detail)


def not_found(name: str) -> ServiceError:
    """There is no such resource."""
    return ServiceError(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"there is no {name!r}")


def already_exists(name: str) -> ServiceError:
    """The name of a job is taken."""
    message = f"there is a {name!r} already: choose another name, or none to get one"
    return ServiceError(grpc.StatusCode.ALREADY_EXISTS, "JOB_EXISTS", message)


def failed_precondition(reason: str, field: str, message: str) -> ServiceError:
    """The request is well formed, but the service is not in the state for it."""
    violation = PreconditionFailure.Violation(type=reason, subject=field, description=message)
    detail = PreconditionFailure(violations=[violation])
    return ServiceError(grpc.StatusCode.FAILED_PRECONDITION, reason, f"{field} {message}", detail)


def out_of_range(field: str, message: str) -> ServiceError:
    """A position that is not there."""
    detail = BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=message)])
    return ServiceError(grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE", f"{field} {message}", detail)


def data_loss(message: str) -> ServiceError:
    """Bytes are not what their digest says."""
    return ServiceError(grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH", message)


def disk_full(message: str) -> ServiceError:
    """There is no room for what the client sends."""
    detail = QuotaFailure(violations=[QuotaFailure.Violation(subject="disk", description=message)])
    return ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, DISK_FULL, message, detail)


def unauthenticated(message: str) -> ServiceError:
    """The token is missing or wrong."""
    return ServiceError(grpc.StatusCode.UNAUTHENTICATED, "BAD_TOKEN", message)


def internal(error_id: str) -> ServiceError:
    """A defect of the service. The id stands in its log, beside the cause."""
    message = f"the service failed; its log has the cause under the id {error_id}"
    return ServiceError(grpc.StatusCode.INTERNAL, "INTERNAL", message)


def unavailable(reason: str, message: str, retry_seconds: int) -> ServiceError:
    """The server, or something that it needs, is away for a moment; the same call may be made again."""
    detail = RetryInfo(retry_delay=Duration(seconds=retry_seconds))
    return ServiceError(grpc.StatusCode.UNAVAILABLE, reason, f"{message}; try again in {retry_seconds} s", detail)
