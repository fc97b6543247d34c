"""Errors in the format of the Connect protocol: https://connectrpc.com/docs/protocol/#error-codes."""

import binascii
import json
from collections.abc import Sequence

import grpc
from google.protobuf import json_format, symbol_database
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from starlette.responses import Response

from gradwire_proto.v1.errors_pb2 import ErrorReason

_DOMAIN = "gradwire.dev"
_STATUS_TRAILER = "grpc-status-details-bin"
_RETRY_SECONDS = 1
# The HTTP status of each code.
_STATUSES = {
    "canceled": 499,
    "unknown": 500,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
}


class CallError(Exception):
    """A call that fails.

    Args:
        code: The code, for example "not_found".
        message: A description for people.
        details: Messages of google.rpc, as in the gRPC status.
        status: The HTTP status, if it is not the default status of the code.
    """

    def __init__(
        self, code: str, message: str, details: Sequence[AnyMessage] = (), *, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or _STATUSES[code]

    def to_json(self) -> bytes:
        """Return the error as JSON."""
        content: dict[str, object] = {"code": self.code, "message": self.message}
        if self.details:
            content["details"] = [_detail(each) for each in self.details]
        return json.dumps(content).encode()

    def response(self) -> Response:
        """Return the error as an HTTP response."""
        headers = {}
        for each in self.details:
            retry = RetryInfo()
            if each.Unpack(retry):
                headers["retry-after"] = str(max(1, retry.retry_delay.seconds))
        return Response(self.to_json(), self.status, headers, "application/json")


def from_rpc(error: grpc.aio.AioRpcError) -> CallError:
    """Return the error of a gRPC call."""
    code = error.code().name.lower().replace("cancelled", "canceled")
    status = Status()
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_TRAILER and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                continue
    return CallError(code, error.details() or "", status.details)


def invalid_request(description: str, field: str = "(request)") -> CallError:
    """Return the error for a request that the gateway cannot translate."""
    violations = [BadRequest.FieldViolation(field=field, description=description)]
    details = [_info(ErrorReason.ERROR_REASON_INVALID_FIELDS), BadRequest(field_violations=violations)]
    return CallError("invalid_argument", f"{field} {description}", _packed(details))


def busy(message: str) -> CallError:
    """Return the error for a call that exceeds the gateway's capacity."""
    return _unavailable(message, ErrorReason.ERROR_REASON_BUSY)


def too_slow(message: str) -> CallError:
    """Return the error for a client that took too long."""
    return _unavailable(message, ErrorReason.ERROR_REASON_TOO_SLOW)


def _unavailable(message: str, reason: ErrorReason) -> CallError:
    retry = RetryInfo()
    retry.retry_delay.seconds = _RETRY_SECONDS
    return CallError("unavailable", message, _packed([_info(reason), retry]))


def _info(reason: ErrorReason) -> ErrorInfo:
    return ErrorInfo(reason=ErrorReason.Name(reason).removeprefix("ERROR_REASON_"), domain=_DOMAIN)


def _packed(details: Sequence[Message]) -> list[AnyMessage]:
    packed = [AnyMessage() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    return packed


def _detail(detail: AnyMessage) -> dict[str, object]:
    """Return a detail with its bytes and, for people and scripts, its fields."""
    name = detail.type_url.rpartition("/")[2]
    content: dict[str, object] = {
        "type": name,
        "value": binascii.b2a_base64(detail.value, newline=False).decode().rstrip("="),
    }
    try:
        message = symbol_database.Default().GetSymbol(name)()
        message.ParseFromString(detail.value)
    except (KeyError, DecodeError):
        return content
    return {**content, "debug": json_format.MessageToDict(message)}
