"""Converts domain exceptions to gRPC statuses with google.rpc details. No other module uses status codes."""

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from gradwire_proto.v1.errors_pb2 import ErrorReason
from gradwire_server.errors import (
    AlreadyExistsError,
    DataLossError,
    DiskFullError,
    DomainError,
    InvalidFieldsError,
    InvalidTokenError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    TensorQuotaError,
    UnavailableError,
)

DOMAIN = "gradwire.dev"
_REASON_PREFIX = "ERROR_REASON_"
# A status is sent in HTTP/2 headers, which clients limit to 8 KiB. The message is percent-encoded, and the details are
# base64-encoded.
_MAX_MESSAGE_BYTES = 700
_MAX_DETAIL_BYTES = 150
_MAX_VIOLATIONS = 10

_CODES: dict[type[DomainError], grpc.StatusCode] = {
    InvalidFieldsError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    DataLossError: grpc.StatusCode.DATA_LOSS,
    DiskFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TensorQuotaError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InvalidTokenError: grpc.StatusCode.UNAUTHENTICATED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: DomainError) -> tuple[grpc.StatusCode, Status]:
    """Return the code and the status of an error. The status contains the details. Long texts are shortened."""
    code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
    text = _shorten(str(error), _MAX_MESSAGE_BYTES)
    return code, _status(code, text, _error_info(error.reason, error.metadata), *_details(error))


def internal_status(error_id: str) -> tuple[grpc.StatusCode, Status]:
    """Return the status for a defect in the service. The log contains the cause, under `error_id`."""
    code = grpc.StatusCode.INTERNAL
    text = f"the service failed. The server log contains the cause under the ID {error_id}"
    return code, _status(code, text, _error_info(ErrorReason.ERROR_REASON_INTERNAL, {"error_id": error_id}))


def _details(error: DomainError) -> list[Message]:
    text = _shorten(str(error), _MAX_DETAIL_BYTES)
    match error:
        case InvalidFieldsError():
            violations = [
                BadRequest.FieldViolation(
                    field=_shorten(each.field, _MAX_DETAIL_BYTES),
                    description=_shorten(each.description, _MAX_DETAIL_BYTES),
                )
                for each in error.violations[:_MAX_VIOLATIONS]
            ]
            return [BadRequest(field_violations=violations)]
        case OutOfRangeError():
            return [
                BadRequest(
                    field_violations=[
                        BadRequest.FieldViolation(field=_shorten(error.field, _MAX_DETAIL_BYTES), description=text)
                    ]
                )
            ]
        case PreconditionError():
            violation = PreconditionFailure.Violation(
                type=_reason_name(error.reason), subject=_shorten(error.field, _MAX_DETAIL_BYTES), description=text
            )
            return [PreconditionFailure(violations=[violation])]
        case DiskFullError() | TensorQuotaError():
            quotas = [QuotaFailure.Violation(subject=error.subject, description=text)]
            # There is space only after tensors are deleted, so a retry alone does not help.
            retry = [_retry_info(error.retry_seconds)] if isinstance(error, DiskFullError) else []
            return [QuotaFailure(violations=quotas), *retry]
        case UnavailableError():
            return [_retry_info(error.retry_seconds)]
    return []


def _status(code: grpc.StatusCode, text: str, *details: Message) -> Status:
    number, _ = code.value
    status = Status(code=number, message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _error_info(reason: ErrorReason, metadata: dict[str, str]) -> ErrorInfo:
    shortened = {key: _shorten(value, _MAX_DETAIL_BYTES) for key, value in metadata.items()}
    return ErrorInfo(reason=_reason_name(reason), domain=DOMAIN, metadata=shortened)


def _shorten(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max_bytes - 3].decode(errors="ignore") + "..."


def _reason_name(reason: ErrorReason) -> str:
    return ErrorReason.Name(reason).removeprefix(_REASON_PREFIX)


def _retry_info(seconds: int) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=seconds))
