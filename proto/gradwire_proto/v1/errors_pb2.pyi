from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_FIELDS: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_TENSOR_MISSING: _ClassVar[ErrorReason]
    ERROR_REASON_TENSOR_DAMAGED: _ClassVar[ErrorReason]
    ERROR_REASON_NO_GPU: _ClassVar[ErrorReason]
    ERROR_REASON_CANNOT_START_FROM: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_ENDED: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_NOT_ENDED: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_NOT_PAUSED: _ClassVar[ErrorReason]
    ERROR_REASON_SEQUENCE_OUT_OF_RANGE: _ClassVar[ErrorReason]
    ERROR_REASON_OFFSET_OUT_OF_RANGE: _ClassVar[ErrorReason]
    ERROR_REASON_DIGEST_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_WEIGHTS_DAMAGED: _ClassVar[ErrorReason]
    ERROR_REASON_DISK_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_TOKEN: _ClassVar[ErrorReason]
    ERROR_REASON_STORE_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_SHUTTING_DOWN: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_ALREADY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_REQUEST_ID_REUSED: _ClassVar[ErrorReason]
    ERROR_REASON_JOB_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_BUSY: _ClassVar[ErrorReason]
    ERROR_REASON_TENSOR_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_TENSOR_IN_USE: _ClassVar[ErrorReason]
    ERROR_REASON_TENSOR_QUOTA: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_SLOW: _ClassVar[ErrorReason]
    ERROR_REASON_NO_CHECKPOINT: _ClassVar[ErrorReason]
    ERROR_REASON_EPOCH_NOT_KEPT: _ClassVar[ErrorReason]
    ERROR_REASON_NO_CLASS_COUNTS: _ClassVar[ErrorReason]

class JobErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_ERROR_REASON_UNSPECIFIED: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_LOSS_NOT_FINITE: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_WORKER_LOST: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_WORKER_ERROR: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_SERVER_ERROR: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_OUT_OF_MEMORY: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_DATA_LOST: _ClassVar[JobErrorReason]
    JOB_ERROR_REASON_SERVER_CRASHED: _ClassVar[JobErrorReason]

class JobWarningReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_WARNING_REASON_UNSPECIFIED: _ClassVar[JobWarningReason]
    JOB_WARNING_REASON_WORKER_LOST: _ClassVar[JobWarningReason]
    JOB_WARNING_REASON_SERVER_RESTARTED: _ClassVar[JobWarningReason]
    JOB_WARNING_REASON_NOT_DETERMINISTIC: _ClassVar[JobWarningReason]
    JOB_WARNING_REASON_PLAN_FALLBACK: _ClassVar[JobWarningReason]
    JOB_WARNING_REASON_DISK_FULL: _ClassVar[JobWarningReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INVALID_FIELDS: ErrorReason
ERROR_REASON_JOB_NOT_FOUND: ErrorReason
ERROR_REASON_MODEL_NOT_FOUND: ErrorReason
ERROR_REASON_JOB_ALREADY_EXISTS: ErrorReason
ERROR_REASON_TENSOR_MISSING: ErrorReason
ERROR_REASON_TENSOR_DAMAGED: ErrorReason
ERROR_REASON_NO_GPU: ErrorReason
ERROR_REASON_CANNOT_START_FROM: ErrorReason
ERROR_REASON_JOB_ENDED: ErrorReason
ERROR_REASON_JOB_NOT_ENDED: ErrorReason
ERROR_REASON_JOB_NOT_PAUSED: ErrorReason
ERROR_REASON_SEQUENCE_OUT_OF_RANGE: ErrorReason
ERROR_REASON_OFFSET_OUT_OF_RANGE: ErrorReason
ERROR_REASON_DIGEST_MISMATCH: ErrorReason
ERROR_REASON_WEIGHTS_DAMAGED: ErrorReason
ERROR_REASON_DISK_FULL: ErrorReason
ERROR_REASON_INVALID_TOKEN: ErrorReason
ERROR_REASON_STORE_UNAVAILABLE: ErrorReason
ERROR_REASON_SHUTTING_DOWN: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_MODEL_ALREADY_EXISTS: ErrorReason
ERROR_REASON_REQUEST_ID_REUSED: ErrorReason
ERROR_REASON_JOB_TOO_LARGE: ErrorReason
ERROR_REASON_BUSY: ErrorReason
ERROR_REASON_TENSOR_NOT_FOUND: ErrorReason
ERROR_REASON_TENSOR_IN_USE: ErrorReason
ERROR_REASON_TENSOR_QUOTA: ErrorReason
ERROR_REASON_TOO_SLOW: ErrorReason
ERROR_REASON_NO_CHECKPOINT: ErrorReason
ERROR_REASON_EPOCH_NOT_KEPT: ErrorReason
ERROR_REASON_NO_CLASS_COUNTS: ErrorReason
JOB_ERROR_REASON_UNSPECIFIED: JobErrorReason
JOB_ERROR_REASON_LOSS_NOT_FINITE: JobErrorReason
JOB_ERROR_REASON_WORKER_LOST: JobErrorReason
JOB_ERROR_REASON_WORKER_ERROR: JobErrorReason
JOB_ERROR_REASON_SERVER_ERROR: JobErrorReason
JOB_ERROR_REASON_OUT_OF_MEMORY: JobErrorReason
JOB_ERROR_REASON_DATA_LOST: JobErrorReason
JOB_ERROR_REASON_SERVER_CRASHED: JobErrorReason
JOB_WARNING_REASON_UNSPECIFIED: JobWarningReason
JOB_WARNING_REASON_WORKER_LOST: JobWarningReason
JOB_WARNING_REASON_SERVER_RESTARTED: JobWarningReason
JOB_WARNING_REASON_NOT_DETERMINISTIC: JobWarningReason
JOB_WARNING_REASON_PLAN_FALLBACK: JobWarningReason
JOB_WARNING_REASON_DISK_FULL: JobWarningReason
