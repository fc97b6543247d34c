"""Every exception that the SDK raises, in one tree, and the one place that makes them from gRPC's errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status


class GradwireError(Exception):
    """Something went wrong with the service or with what was asked of it. `reason` is stable, for programs."""

    reason: str = ""


@dataclass(frozen=True)
class FieldViolation:
    """A field that is wrong, by its path in the request, and what to do."""

    field: str
    description: str


class InvalidArgumentError(GradwireError, ValueError):
    """What was asked cannot be done as it stands. `violations` names each field."""

    def __init__(self, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(message)
        self.violations = tuple(violations)


class NotFoundError(GradwireError, LookupError):
    """There is no job or model of this name."""


class AlreadyExistsError(GradwireError):
    """The name is taken."""


class FailedPreconditionError(GradwireError):
    """The service is not in the state for it: a tensor is missing, or there is no GPU."""


class OutOfRangeError(GradwireError):
    """A position that is not there."""


class DataLossError(GradwireError):
    """Bytes are not what their digest says."""


class ResourceExhaustedError(GradwireError):
    """The service has no room, on its disk for instance."""


class UnauthenticatedError(GradwireError):
    """The token is missing or wrong."""


class UnavailableError(GradwireError, ConnectionError):
    """No server answers at the address."""


class ServiceFailureError(GradwireError):
    """The service itself failed; its log says why."""


class JobFailedError(GradwireError):
    """The job ended as FAILED; the message says at which epoch, why, and what to try."""


class JobCancelledError(GradwireError):
    """The job was cancelled before it was done."""


_BY_CODE: dict[grpc.StatusCode, type[GradwireError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
}


def invalid(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return the error for fields that are wrong; the same that the service would send."""
    return InvalidArgumentError("; ".join(f"{each.field} {each.description}" for each in violations), violations)


def is_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether no server answered, or one ended while it had the call: the same call may succeed a little later."""
    # CANCELLED: a server that ended broke the call off; whoever cancels here gets a CancelledError instead.
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    )


def from_rpc_error(error: grpc.aio.AioRpcError, address: str) -> GradwireError:
    """Return the SDK's exception for an error of a call to the server at `address`."""
    if is_away(error):
        return UnavailableError(
            f"no gradwire server answers at {address} ({error.details()}); is it running? "
            "Start one with `gradwire serve`, or set the address with at=... or GRADWIRE_ADDRESS"
        )
    message = error.details() or error.code().name
    kind = _BY_CODE.get(error.code(), ServiceFailureError)
    info, violations = _details(error)
    translated = InvalidArgumentError(message, violations) if kind is InvalidArgumentError else kind(message)
    translated.reason = info.reason
    return translated


def _details(error: grpc.aio.AioRpcError) -> tuple[ErrorInfo, list[FieldViolation]]:
    info, bad_request = ErrorInfo(), BadRequest()
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # asks only for code, details and metadata
    except ValueError:  # The details contradict the status: a proxy between has rewritten one of them.
        status = None
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(bad_request)
    violations = [FieldViolation(each.field, each.description) for each in bad_request.field_violations]
    return info, violations
