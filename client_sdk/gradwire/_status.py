"""Converts gRPC errors to the SDK's exceptions. No other module does this."""

import grpc

from gradwire._argument_names import in_terms_of_the_call, invalid
from gradwire._exceptions import (
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    GradwireError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)

_DOMAIN = "gradwire.dev"
# The reason of the error if the server does not have the method. It is not one of the server's own reasons.
UNIMPLEMENTED = "UNIMPLEMENTED"

_BY_CODE: dict[grpc.StatusCode, type[GradwireError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def error_from_rpc(error: grpc.aio.AioRpcError, address: str) -> GradwireError:
    """Return the SDK's exception for a failed call to the server at `address`."""
    code, said = error.code(), error.details() or ""
    reason, metadata, violations, retry_after = _details(error)
    if reason is None and code is grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(
            f"no gradwire server answers at {address} ({said}). Start one with `gradwire serve`, or set the address "
            "with at=... or GRADWIRE_ADDRESS."
        )
    if code is grpc.StatusCode.CANCELLED:
        # A client that cancels its own call gets a CancelledError instead.
        return UnavailableError(f"the server at {address} stopped during the call ({said}). Try again.")
    if reason is None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceededError(
            f"the server at {address} did not answer in time ({said}). Try again, or raise Client(timeout=...)."
        )
    if violations and code is grpc.StatusCode.INVALID_ARGUMENT:
        return invalid(violations, metadata=metadata)
    if reason is None and code is grpc.StatusCode.UNIMPLEMENTED:
        reason = UNIMPLEMENTED
    kind = _BY_CODE.get(code, InternalError)
    message = in_terms_of_the_call(said) or f"the server at {address} answered {code.name}"
    return kind(message, reason=reason, metadata=metadata, retry_after=retry_after)


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[str | None, dict[str, str], list[FieldViolation], float | None]:
    """Return the reason, the metadata, the violations and the retry delay in seconds."""
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # noqa: PLC0415  (slow to import)
    from grpc_status import rpc_status  # noqa: PLC0415

    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # reads only code, details and metadata
    except ValueError:  # The details contradict the status, so a proxy must have changed one of them.
        status = None
    retry_after = None
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(bad_request)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    violations = [FieldViolation(each.field, each.description) for each in bad_request.field_violations]
    if info.domain != _DOMAIN:
        return None, {}, violations, retry_after
    return info.reason or None, dict(info.metadata), violations, retry_after
