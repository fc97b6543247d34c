"""The conversion of domain exceptions to gRPC statuses: code, reason, metadata and details."""

import base64
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, QuotaFailure, RetryInfo

from gradwire_proto.v1.errors_pb2 import ErrorReason
from gradwire_server import errors
from gradwire_server.api.status import internal_status, status_of

CASES = [
    (errors.invalid_field("job.spec.epochs", "must be at least 1"), "INVALID_ARGUMENT", [BadRequest], {}),
    (errors.JobNotFoundError("jobs/x"), "NOT_FOUND", [], {"job": "jobs/x"}),
    (errors.ModelNotFoundError("models/x"), "NOT_FOUND", [], {"model": "models/x"}),
    (errors.TensorNotFoundError("tensors/x"), "NOT_FOUND", [], {"tensor": "tensors/x"}),
    (errors.EpochNotKeptError("jobs/x", 7, [1, 2]), "NOT_FOUND", [], {"job": "jobs/x", "epoch": "7"}),
    (errors.JobAlreadyExistsError("jobs/x"), "ALREADY_EXISTS", [], {"job": "jobs/x"}),
    (errors.ModelAlreadyExistsError("models/x"), "ALREADY_EXISTS", [], {"model": "models/x"}),
    (
        errors.RequestIdReusedError("jobs/x", ["job_id", "job.labels"]),
        "ALREADY_EXISTS",
        [],
        {"job": "jobs/x", "fields": "job_id,job.labels"},
    ),
    (
        errors.TensorMissingError("f", "00"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"field": "f", "sha256": "00"},
    ),
    (
        errors.TensorDamagedError("f", "00", "it is gone"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"field": "f", "sha256": "00"},
    ),
    (errors.NoGpuError("f"), "FAILED_PRECONDITION", [PreconditionFailure], {"field": "f"}),
    (
        errors.TensorInUseError("tensors/x", "models/y"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"tensor": "tensors/x", "model": "models/y"},
    ),
    (
        errors.JobTooLargeError("f", "10 parameters", 9, 5),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"field": "f", "needed_bytes": "9", "available_bytes": "5"},
    ),
    (
        errors.CannotStartFromError("f", "no", field="f", job="jobs/x"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"field": "f", "job": "jobs/x"},
    ),
    (
        errors.JobEndedError("jobs/x", "FAILED", "No"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"job": "jobs/x", "state": "FAILED"},
    ),
    (
        errors.JobNotEndedError("jobs/x", "RUNNING", "Cancel it"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"job": "jobs/x", "state": "RUNNING"},
    ),
    (
        errors.NoCheckpointError("jobs/x", "FAILED", "has no checkpoint"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"job": "jobs/x", "state": "FAILED"},
    ),
    (
        errors.NoClassCountsError("models/x", "it predicts numbers, not classes"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"model": "models/x"},
    ),
    (
        errors.JobNotPausedError("jobs/x", "RUNNING"),
        "FAILED_PRECONDITION",
        [PreconditionFailure],
        {"job": "jobs/x", "state": "RUNNING"},
    ),
    (
        errors.SequenceOutOfRangeError("jobs/x", 9, 3),
        "OUT_OF_RANGE",
        [BadRequest],
        {"job": "jobs/x", "after_sequence": "9", "last_sequence": "3"},
    ),
    (
        errors.OffsetOutOfRangeError("header.offset", "no", offset=5, received_bytes=3),
        "OUT_OF_RANGE",
        [BadRequest],
        {"offset": "5", "received_bytes": "3"},
    ),
    (
        errors.DigestMismatchError("00", "11"),
        "DATA_LOSS",
        [],
        {"expected_sha256": "00", "actual_sha256": "11"},
    ),
    (errors.WeightsDamagedError("models/x", "gone"), "DATA_LOSS", [], {"model": "models/x"}),
    (errors.DiskFullError("the disk is full"), "RESOURCE_EXHAUSTED", [QuotaFailure, RetryInfo], {}),
    (
        errors.TensorQuotaError(9, 5, 10),
        "RESOURCE_EXHAUSTED",
        [QuotaFailure],
        {"stored_bytes": "5", "max_bytes": "10"},
    ),
    (errors.InvalidTokenError("wrong"), "UNAUTHENTICATED", [], {}),
    (errors.StoreUnavailableError(), "UNAVAILABLE", [RetryInfo], {}),
    (errors.ServerBusyError("too many calls"), "UNAVAILABLE", [RetryInfo], {}),
    (errors.ShuttingDownError(), "UNAVAILABLE", [RetryInfo], {}),
    (errors.ServerBusyError("too many"), "UNAVAILABLE", [RetryInfo], {}),
    (errors.TooSlowError("the request"), "UNAVAILABLE", [RetryInfo], {}),
]


@pytest.mark.parametrize(("error", "code", "details", "metadata"), CASES, ids=lambda value: type(value).__name__)
def test_an_error_becomes_a_status_with_its_reason_metadata_and_details(error, code, details, metadata):
    actual_code, status = status_of(error)
    assert actual_code is getattr(grpc.StatusCode, code)
    assert (status.code, status.message) == (actual_code.value[0], str(error))
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert f"ERROR_REASON_{info.reason}" == ErrorReason.Name(error.reason)
    assert (info.domain, dict(info.metadata)) == ("gradwire.dev", metadata)
    assert [detail.TypeName() for detail in status.details[1:]] == [kind.DESCRIPTOR.full_name for kind in details]


@pytest.mark.parametrize("letter", ["x", "é", "\N{GRINNING FACE}"])
def test_a_status_fits_into_the_headers_that_clients_accept(letter):
    text = 10_000 * letter
    violations = [errors.FieldViolation(text, text) for _ in range(1000)]
    for error in (
        errors.InvalidFieldsError(violations, received_bytes=text),
        errors.JobNotFoundError(text),
        errors.CannotStartFromError(text, text, field=text, job=text),
        errors.RequestIdReusedError(text, [text] * 20),
    ):
        _, status = status_of(error)
        encoded = len(quote(status.message)) + len(base64.b64encode(status.SerializeToString()))
        assert encoded < 8000


def test_every_reason_has_an_error():
    raised = {error.reason for error, *_ in CASES} | {ErrorReason.ERROR_REASON_INTERNAL}
    assert raised == set(ErrorReason.values()) - {ErrorReason.ERROR_REASON_UNSPECIFIED}


def test_an_internal_error_names_only_its_id():
    code, status = internal_status("12ab")
    assert code is grpc.StatusCode.INTERNAL
    assert "12ab" in status.message
