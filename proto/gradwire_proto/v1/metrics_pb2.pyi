from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluationSet(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_SET_UNSPECIFIED: _ClassVar[EvaluationSet]
    EVALUATION_SET_TRAIN: _ClassVar[EvaluationSet]
    EVALUATION_SET_TEST: _ClassVar[EvaluationSet]
EVALUATION_SET_UNSPECIFIED: EvaluationSet
EVALUATION_SET_TRAIN: EvaluationSet
EVALUATION_SET_TEST: EvaluationSet

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

class ClassCounts(_message.Message):
    __slots__ = ("evaluated_on", "epoch", "class_names", "actual", "predicted", "correct", "confusion")
    EVALUATED_ON_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    evaluated_on: EvaluationSet
    epoch: int
    class_names: _containers.RepeatedScalarFieldContainer[str]
    actual: _containers.RepeatedScalarFieldContainer[int]
    predicted: _containers.RepeatedScalarFieldContainer[int]
    correct: _containers.RepeatedScalarFieldContainer[int]
    confusion: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, evaluated_on: _Optional[_Union[EvaluationSet, str]] = ..., epoch: _Optional[int] = ..., class_names: _Optional[_Iterable[str]] = ..., actual: _Optional[_Iterable[int]] = ..., predicted: _Optional[_Iterable[int]] = ..., correct: _Optional[_Iterable[int]] = ..., confusion: _Optional[_Iterable[int]] = ...) -> None: ...
