from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Epoch(_message.Message):
    __slots__ = ("epoch", "running_loss", "train", "test", "train_seconds", "evaluate_seconds")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    running_loss: float
    train: Metrics
    test: Metrics
    train_seconds: float
    evaluate_seconds: float
    def __init__(self, epoch: _Optional[int] = ..., running_loss: _Optional[float] = ..., train: _Optional[_Union[Metrics, _Mapping]] = ..., test: _Optional[_Union[Metrics, _Mapping]] = ..., train_seconds: _Optional[float] = ..., evaluate_seconds: _Optional[float] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("loss", "accuracy", "precision", "recall", "f1", "mean_absolute_error", "r2")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    F1_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABSOLUTE_ERROR_FIELD_NUMBER: _ClassVar[int]
    R2_FIELD_NUMBER: _ClassVar[int]
    loss: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    mean_absolute_error: float
    r2: float
    def __init__(self, loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ..., f1: _Optional[float] = ..., mean_absolute_error: _Optional[float] = ..., r2: _Optional[float] = ...) -> None: ...
