"""The domain exceptions, which describe problems with requests and with the service. Only `api` uses gRPC statuses.

DomainError
├── InvalidFieldsError             fields of the request are invalid
├── NotFoundError                  JobNotFoundError, ModelNotFoundError, TensorNotFoundError, EpochNotKeptError
├── AlreadyExistsError             JobAlreadyExistsError, ModelAlreadyExistsError, RequestIdReusedError
├── PreconditionError              the service is not in the state that the call requires
│   ├── TensorMissingError, TensorDamagedError, TensorInUseError
│   ├── NoGpuError, JobTooLargeError, CannotStartFromError
│   └── JobEndedError, JobNotEndedError, JobNotPausedError, NoCheckpointError, NoClassCountsError
├── OutOfRangeError                SequenceOutOfRangeError, OffsetOutOfRangeError
├── DataLossError                  DigestMismatchError, WeightsDamagedError
├── DiskFullError
├── TensorQuotaError
├── InvalidTokenError
└── UnavailableError               StoreUnavailableError, ServerBusyError, TooSlowError, ShuttingDownError
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradwire_proto.v1.errors_pb2 import ErrorReason

# The delay in seconds before a client should retry a call that failed because the disk is full.
_DISK_FULL_RETRY_SECONDS = 30
# An error lists at most this many kept epochs.
_MAX_SHOWN_EPOCHS = 20


class DomainError(Exception):
    """The base class of all errors that a client can receive.

    Attributes:
        reason: A stable name for use in programs.
        metadata: The values that appear in the message, in machine-readable form.
    """

    reason: ClassVar[ErrorReason]

    def __init__(self, text: str, /, **metadata: object) -> None:
        super().__init__(text)
        self.metadata = {key: str(value) for key, value in metadata.items()}


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field, with its path in the request, for example "job.spec.epochs", and a description."""

    field: str
    description: str


class InvalidFieldsError(DomainError):
    """One or more fields of a request are invalid."""

    reason = ErrorReason.ERROR_REASON_INVALID_FIELDS

    def __init__(self, violations: Sequence[FieldViolation], **metadata: object) -> None:
        super().__init__("; ".join(f"{each.field} {each.description}" for each in violations), **metadata)
        self.violations = tuple(violations)


def invalid_field(field: str, description: str, **metadata: object) -> InvalidFieldsError:
    """Return the error for one invalid field."""
    return InvalidFieldsError([FieldViolation(field, description)], **metadata)


class NotFoundError(DomainError):
    """The named resource does not exist."""


class JobNotFoundError(NotFoundError):
    """No job has this name."""

    reason = ErrorReason.ERROR_REASON_JOB_NOT_FOUND

    def __init__(self, job_name: str) -> None:
        super().__init__(f"job {job_name!r} does not exist", job=job_name)


class ModelNotFoundError(NotFoundError):
    """No model has this name."""

    reason = ErrorReason.ERROR_REASON_MODEL_NOT_FOUND

    def __init__(self, model_name: str) -> None:
        super().__init__(f"model {model_name!r} does not exist", model=model_name)


class TensorNotFoundError(NotFoundError):
    """No stored tensor has this name."""

    reason = ErrorReason.ERROR_REASON_TENSOR_NOT_FOUND

    def __init__(self, tensor_name: str) -> None:
        super().__init__(f"tensor {tensor_name!r} does not exist", tensor=tensor_name)


class EpochNotKeptError(NotFoundError):
    """The weights of a job after this epoch are not kept."""

    reason = ErrorReason.ERROR_REASON_EPOCH_NOT_KEPT

    def __init__(self, job_name: str, epoch: int, kept: Sequence[int]) -> None:
        shown = ", ".join(map(str, kept[:_MAX_SHOWN_EPOCHS])) + (", ..." if len(kept) > _MAX_SHOWN_EPOCHS else "")
        has = f"It has those of epoch {shown}" if kept else "It has those of no epoch"
        super().__init__(
            f"job {job_name!r} does not have the weights of epoch {epoch}. {has}", job=job_name, epoch=epoch
        )


class AlreadyExistsError(DomainError):
    """The name or the request ID of a new job is already in use."""


class JobAlreadyExistsError(AlreadyExistsError):
    """Another job has this name."""

    reason = ErrorReason.ERROR_REASON_JOB_ALREADY_EXISTS

    def __init__(self, job_name: str) -> None:
        text = f"job {job_name!r} already exists. Choose another name, or give none to get a new one"
        super().__init__(text, job=job_name)


class ModelAlreadyExistsError(AlreadyExistsError):
    """The model of a deleted job has this name."""

    reason = ErrorReason.ERROR_REASON_MODEL_ALREADY_EXISTS

    def __init__(self, model_name: str) -> None:
        text = (
            f"model {model_name!r} of a deleted job already exists, and a model gets the name of its job. "
            "Choose another name, or delete the model"
        )
        super().__init__(text, model=model_name)


class RequestIdReusedError(AlreadyExistsError):
    """A different request was already made with this request ID."""

    reason = ErrorReason.ERROR_REASON_REQUEST_ID_REUSED

    def __init__(self, job_name: str, fields: Sequence[str]) -> None:
        names = ", ".join(fields)
        text = (
            f"request_id was already used for job {job_name!r}, which had other values for {names}. "
            "Use a new request_id for a new job"
        )
        super().__init__(text, job=job_name, fields=",".join(fields))


class PreconditionError(DomainError):
    """The request is valid, but the service is not in the required state.

    Attributes:
        field: The path of the request field that names the resource in the wrong state.
    """

    def __init__(self, field: str, text: str, /, **metadata: object) -> None:
        super().__init__(text, **metadata)
        self.field = field


class TensorMissingError(PreconditionError):
    """A tensor that the spec references is not stored, or is only partially stored."""

    reason = ErrorReason.ERROR_REASON_TENSOR_MISSING

    def __init__(self, field: str, sha256: str) -> None:
        text = (
            f"{field} references tensor {sha256}, which is not stored, or is only partially stored. "
            "Upload it with TensorService.UploadTensor"
        )
        super().__init__(field, text, field=field, sha256=sha256)


class TensorDamagedError(PreconditionError):
    """The stored bytes of a tensor do not match its digest."""

    reason = ErrorReason.ERROR_REASON_TENSOR_DAMAGED

    def __init__(self, field: str, sha256: str, cause: str) -> None:
        text = f"{field} references tensor {sha256}, which cannot be read: {cause}. Upload it again"
        super().__init__(field, text, field=field, sha256=sha256)


class TensorInUseError(PreconditionError):
    """A job or a model references the tensor."""

    reason = ErrorReason.ERROR_REASON_TENSOR_IN_USE

    def __init__(self, tensor_name: str, owner: str) -> None:
        kind = owner.partition("s/")[0]
        text = f"tensor {tensor_name!r} is in use: {kind} {owner!r} references it. Delete the {kind} first"
        super().__init__("name", text, tensor=tensor_name, **{kind: owner})


class NoGpuError(PreconditionError):
    """The job requires a GPU, but the cluster does not have one."""

    reason = ErrorReason.ERROR_REASON_NO_GPU

    def __init__(self, field: str) -> None:
        text = f"{field} is DEVICE_GPU, but the cluster has no GPU. Use DEVICE_AUTO, or add a node with a GPU"
        super().__init__(field, text, field=field)


class JobTooLargeError(PreconditionError):
    """The job needs more memory than a worker has."""

    reason = ErrorReason.ERROR_REASON_JOB_TOO_LARGE

    def __init__(self, field: str, what: str, needed: int, available: int) -> None:
        """Describe the job with `what`; `needed` and `available` are in bytes."""
        text = (
            f"the job needs about {needed / 2**30:.1f} GiB of memory ({what}), but a worker has only "
            f"{available / 2**30:.1f} GiB for it. Use a smaller model or batch_size, or start the server with a "
            "larger --memory-per-job"
        )
        super().__init__(field, text, field=field, needed_bytes=needed, available_bytes=available)


class CannotStartFromError(PreconditionError):
    """A job cannot start from the job or model that it names."""

    reason = ErrorReason.ERROR_REASON_CANNOT_START_FROM


class JobEndedError(PreconditionError):
    """The call applies only to a job that has not ended."""

    reason = ErrorReason.ERROR_REASON_JOB_ENDED

    def __init__(self, job_name: str, state: str, text: str) -> None:
        super().__init__("name", f"job {job_name!r} has ended ({state}). {text}", job=job_name, state=state)


class JobNotEndedError(PreconditionError):
    """The call applies only to a job that has ended."""

    reason = ErrorReason.ERROR_REASON_JOB_NOT_ENDED

    def __init__(self, job_name: str, state: str, text: str) -> None:
        super().__init__("name", f"job {job_name!r} has not ended ({state}). {text}", job=job_name, state=state)


class JobNotPausedError(PreconditionError):
    """The job was never paused."""

    reason = ErrorReason.ERROR_REASON_JOB_NOT_PAUSED

    def __init__(self, job_name: str, state: str) -> None:
        text = f"job {job_name!r} is not paused ({state}). Only a paused job can be resumed"
        super().__init__("name", text, job=job_name, state=state)


class NoCheckpointError(PreconditionError):
    """The job has no checkpoint."""

    reason = ErrorReason.ERROR_REASON_NO_CHECKPOINT

    def __init__(self, job_name: str, state: str, text: str) -> None:
        super().__init__("name", f"job {job_name!r} {text}", job=job_name, state=state)


class NoClassCountsError(PreconditionError):
    """The rows of each class were not counted for these weights."""

    reason = ErrorReason.ERROR_REASON_NO_CLASS_COUNTS

    def __init__(self, model_name: str, cause: str) -> None:
        text = f"model {model_name!r} has no confusion matrix and no metrics for each class, because {cause}"
        super().__init__("name", text, model=model_name)


class OutOfRangeError(DomainError):
    """A position in the request is out of range.

    Attributes:
        field: The path of the field in the request.
    """

    def __init__(self, field: str, text: str, /, **metadata: object) -> None:
        super().__init__(text, **metadata)
        self.field = field


class SequenceOutOfRangeError(OutOfRangeError):
    """A job does not have an event with this sequence number."""

    reason = ErrorReason.ERROR_REASON_SEQUENCE_OUT_OF_RANGE

    def __init__(self, job_name: str, after_sequence: int, last_sequence: int) -> None:
        super().__init__(
            "after_sequence",
            f"after_sequence must be 0 to {last_sequence}, the last event of job {job_name!r}, got {after_sequence}",
            job=job_name,
            after_sequence=after_sequence,
            last_sequence=last_sequence,
        )


class OffsetOutOfRangeError(OutOfRangeError):
    """An upload or a download cannot continue at this offset."""

    reason = ErrorReason.ERROR_REASON_OFFSET_OUT_OF_RANGE


class DataLossError(DomainError):
    """Bytes are missing or do not match their digest."""


class DigestMismatchError(DataLossError):
    """The digest of the uploaded bytes differs from the digest in the header."""

    reason = ErrorReason.ERROR_REASON_DIGEST_MISMATCH

    def __init__(self, expected: str, actual: str) -> None:
        text = (
            f"the uploaded bytes have the digest {actual} instead of {expected} and were deleted. "
            "Upload the tensor again from offset 0"
        )
        super().__init__(text, expected_sha256=expected, actual_sha256=actual)


class WeightsDamagedError(DataLossError):
    """The stored weights of a model are missing or damaged."""

    reason = ErrorReason.ERROR_REASON_WEIGHTS_DAMAGED

    def __init__(self, model_name: str, cause: str) -> None:
        super().__init__(f"the weights of model {model_name!r} cannot be read: {cause}", model=model_name)


class DiskFullError(DomainError):
    """A disk that the server or its database uses is full."""

    reason = ErrorReason.ERROR_REASON_DISK_FULL
    subject = "disk"
    retry_seconds = _DISK_FULL_RETRY_SECONDS

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. Free some space there, or try again later")


class TensorQuotaError(DomainError):
    """The stored tensors have reached the maximum size that the server allows."""

    reason = ErrorReason.ERROR_REASON_TENSOR_QUOTA
    subject = "tensors"

    def __init__(self, size: int, stored: int, limit: int) -> None:
        """All sizes are in bytes."""
        text = (
            f"a tensor of {size / 2**20:.1f} MiB does not fit: {stored / 2**20:.1f} MiB are stored, and this server "
            f"stores at most {limit / 2**20:.1f} MiB. Delete tensors, models or jobs that you do not need"
        )
        super().__init__(text, stored_bytes=stored, max_bytes=limit)


class InvalidTokenError(DomainError):
    """The token is missing or invalid."""

    reason = ErrorReason.ERROR_REASON_INVALID_TOKEN


class UnavailableError(DomainError):
    """The server, or a service that it depends on, is temporarily unavailable."""

    retry_seconds = 1


class StoreUnavailableError(UnavailableError):
    """The database does not respond."""

    reason = ErrorReason.ERROR_REASON_STORE_UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the database of the service does not respond. Try again in a moment")


class ShuttingDownError(UnavailableError):
    """The server is shutting down."""

    reason = ErrorReason.ERROR_REASON_SHUTTING_DOWN

    def __init__(self) -> None:
        super().__init__("the server is shutting down. Try again in a moment")


class ServerBusyError(UnavailableError):
    """The server already has as much work as its memory allows."""

    reason = ErrorReason.ERROR_REASON_BUSY

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. Try again in a moment")


class TooSlowError(UnavailableError):
    """The client took too long to send a request or to accept a response."""

    reason = ErrorReason.ERROR_REASON_TOO_SLOW

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}, which is too slow for the server at the moment. Try again")
