import datetime

from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from gradwire_proto.v1 import errors_pb2 as _errors_pb2
from gradwire_proto.v1 import metrics_pb2 as _metrics_pb2
from gradwire_proto.v1 import model_service_pb2 as _model_service_pb2
from gradwire_proto.v1 import spec_pb2 as _spec_pb2
from gradwire_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_ALL_EPOCHS: _ClassVar[StopReason]
    STOP_REASON_EARLY_STOPPING: _ClassVar[StopReason]
    STOP_REASON_TIME_LIMIT: _ClassVar[StopReason]
    STOP_REASON_REQUESTED: _ClassVar[StopReason]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_STARTING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]

class JobView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_VIEW_UNSPECIFIED: _ClassVar[JobView]
    JOB_VIEW_BASIC: _ClassVar[JobView]
    JOB_VIEW_FULL: _ClassVar[JobView]
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_ALL_EPOCHS: StopReason
STOP_REASON_EARLY_STOPPING: StopReason
STOP_REASON_TIME_LIMIT: StopReason
STOP_REASON_REQUESTED: StopReason
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_STARTING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_VIEW_UNSPECIFIED: JobView
JOB_VIEW_BASIC: JobView
JOB_VIEW_FULL: JobView

class Job(_message.Message):
    __slots__ = ("name", "spec", "state", "create_time", "start_time", "end_time", "attempt", "last_sequence", "last_epoch", "error", "model", "execution", "disk_usage", "labels", "continue_job", "initial_model", "initial_epoch", "architecture", "epochs", "stop_reason", "best_epoch", "epochs_without_improvement", "kept_epochs", "training_seconds", "stop_request_time", "start_epoch")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    DISK_USAGE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONTINUE_JOB_FIELD_NUMBER: _ClassVar[int]
    INITIAL_MODEL_FIELD_NUMBER: _ClassVar[int]
    INITIAL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_WITHOUT_IMPROVEMENT_FIELD_NUMBER: _ClassVar[int]
    KEPT_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STOP_REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    START_EPOCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    spec: _spec_pb2.JobSpec
    state: JobState
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    attempt: int
    last_sequence: int
    last_epoch: _metrics_pb2.Epoch
    error: JobError
    model: str
    execution: Execution
    disk_usage: DiskUsage
    labels: _containers.ScalarMap[str, str]
    continue_job: str
    initial_model: str
    initial_epoch: int
    architecture: str
    epochs: int
    stop_reason: StopReason
    best_epoch: _metrics_pb2.Epoch
    epochs_without_improvement: int
    kept_epochs: _containers.RepeatedScalarFieldContainer[int]
    training_seconds: float
    stop_request_time: _timestamp_pb2.Timestamp
    start_epoch: int
    def __init__(self, name: _Optional[str] = ..., spec: _Optional[_Union[_spec_pb2.JobSpec, _Mapping]] = ..., state: _Optional[_Union[JobState, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., last_sequence: _Optional[int] = ..., last_epoch: _Optional[_Union[_metrics_pb2.Epoch, _Mapping]] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., model: _Optional[str] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., disk_usage: _Optional[_Union[DiskUsage, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., continue_job: _Optional[str] = ..., initial_model: _Optional[str] = ..., initial_epoch: _Optional[int] = ..., architecture: _Optional[str] = ..., epochs: _Optional[int] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., best_epoch: _Optional[_Union[_metrics_pb2.Epoch, _Mapping]] = ..., epochs_without_improvement: _Optional[int] = ..., kept_epochs: _Optional[_Iterable[int]] = ..., training_seconds: _Optional[float] = ..., stop_request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_epoch: _Optional[int] = ...) -> None: ...

class DiskUsage(_message.Message):
    __slots__ = ("log_bytes", "checkpoint_bytes")
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_BYTES_FIELD_NUMBER: _ClassVar[int]
    log_bytes: int
    checkpoint_bytes: int
    def __init__(self, log_bytes: _Optional[int] = ..., checkpoint_bytes: _Optional[int] = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: _errors_pb2.JobErrorReason
    message: str
    def __init__(self, reason: _Optional[_Union[_errors_pb2.JobErrorReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("plan", "plan_reason", "device", "host", "threads")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PLAN_REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    plan: str
    plan_reason: str
    device: str
    host: str
    threads: int
    def __init__(self, plan: _Optional[str] = ..., plan_reason: _Optional[str] = ..., device: _Optional[str] = ..., host: _Optional[str] = ..., threads: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "time", "attempt", "state_change", "epoch", "checkpoint", "warning")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    attempt: int
    state_change: StateChange
    epoch: _metrics_pb2.Epoch
    checkpoint: Checkpoint
    warning: JobWarning
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., epoch: _Optional[_Union[_metrics_pb2.Epoch, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., warning: _Optional[_Union[JobWarning, _Mapping]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("state", "message", "error", "model", "execution", "stop_reason")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    state: JobState
    message: str
    error: JobError
    model: str
    execution: Execution
    stop_reason: StopReason
    def __init__(self, state: _Optional[_Union[JobState, str]] = ..., message: _Optional[str] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., model: _Optional[str] = ..., execution: _Optional[_Union[Execution, _Mapping]] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("epoch", "weights")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    weights: _tensor_pb2.TensorRef
    def __init__(self, epoch: _Optional[int] = ..., weights: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ...) -> None: ...

class JobWarning(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: _errors_pb2.JobWarningReason
    message: str
    def __init__(self, reason: _Optional[_Union[_errors_pb2.JobWarningReason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("job", "job_id", "request_id", "validate_only")
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    job: Job
    job_id: str
    request_id: str
    validate_only: bool
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., job_id: _Optional[str] = ..., request_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter", "order_by", "view")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    order_by: str
    view: JobView
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., view: _Optional[_Union[JobView, str]] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("name", "after_sequence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_sequence: int
    def __init__(self, name: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("events", "job")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    job: Job
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("names", "include_new")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_NEW_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    include_new: bool
    def __init__(self, names: _Optional[_Iterable[str]] = ..., include_new: _Optional[bool] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("jobs", "deleted_jobs")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    DELETED_JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    deleted_jobs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., deleted_jobs: _Optional[_Iterable[str]] = ...) -> None: ...

class SampleEpochsRequest(_message.Message):
    __slots__ = ("name", "first_epoch", "last_epoch", "max_epochs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    MAX_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    name: str
    first_epoch: int
    last_epoch: int
    max_epochs: int
    def __init__(self, name: _Optional[str] = ..., first_epoch: _Optional[int] = ..., last_epoch: _Optional[int] = ..., max_epochs: _Optional[int] = ...) -> None: ...

class SampleEpochsResponse(_message.Message):
    __slots__ = ("epochs", "complete")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    epochs: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.Epoch]
    complete: bool
    def __init__(self, epochs: _Optional[_Iterable[_Union[_metrics_pb2.Epoch, _Mapping]]] = ..., complete: _Optional[bool] = ...) -> None: ...

class ListJobEventsRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListJobEventsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class StopJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteJobRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...

class DownloadCheckpointRequest(_message.Message):
    __slots__ = ("name", "format", "offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    format: _model_service_pb2.ModelFormat
    offset: int
    def __init__(self, name: _Optional[str] = ..., format: _Optional[_Union[_model_service_pb2.ModelFormat, str]] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadCheckpointResponse(_message.Message):
    __slots__ = ("header", "chunk", "epoch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    header: _model_service_pb2.FileHeader
    chunk: bytes
    epoch: int
    def __init__(self, header: _Optional[_Union[_model_service_pb2.FileHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...
