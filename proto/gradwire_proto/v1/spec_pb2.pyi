from gradwire_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Initialization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INITIALIZATION_UNSPECIFIED: _ClassVar[Initialization]
    INITIALIZATION_KAIMING: _ClassVar[Initialization]
    INITIALIZATION_SIMPLE: _ClassVar[Initialization]
    INITIALIZATION_GIVEN: _ClassVar[Initialization]

class Device(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEVICE_UNSPECIFIED: _ClassVar[Device]
    DEVICE_AUTO: _ClassVar[Device]
    DEVICE_CPU: _ClassVar[Device]
    DEVICE_GPU: _ClassVar[Device]
INITIALIZATION_UNSPECIFIED: Initialization
INITIALIZATION_KAIMING: Initialization
INITIALIZATION_SIMPLE: Initialization
INITIALIZATION_GIVEN: Initialization
DEVICE_UNSPECIFIED: Device
DEVICE_AUTO: Device
DEVICE_CPU: Device
DEVICE_GPU: Device

class ModelSpec(_message.Message):
    __slots__ = ("layers", "class_names")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    layers: _containers.RepeatedCompositeFieldContainer[Layer]
    class_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, layers: _Optional[_Iterable[_Union[Layer, _Mapping]]] = ..., class_names: _Optional[_Iterable[str]] = ...) -> None: ...

class Layer(_message.Message):
    __slots__ = ("name", "linear", "relu")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    RELU_FIELD_NUMBER: _ClassVar[int]
    name: str
    linear: Linear
    relu: Relu
    def __init__(self, name: _Optional[str] = ..., linear: _Optional[_Union[Linear, _Mapping]] = ..., relu: _Optional[_Union[Relu, _Mapping]] = ...) -> None: ...

class Linear(_message.Message):
    __slots__ = ("in_features", "out_features", "initialization")
    IN_FEATURES_FIELD_NUMBER: _ClassVar[int]
    OUT_FEATURES_FIELD_NUMBER: _ClassVar[int]
    INITIALIZATION_FIELD_NUMBER: _ClassVar[int]
    in_features: int
    out_features: int
    initialization: Initialization
    def __init__(self, in_features: _Optional[int] = ..., out_features: _Optional[int] = ..., initialization: _Optional[_Union[Initialization, str]] = ...) -> None: ...

class Relu(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Loss(_message.Message):
    __slots__ = ("mean_squared_error", "cross_entropy")
    MEAN_SQUARED_ERROR_FIELD_NUMBER: _ClassVar[int]
    CROSS_ENTROPY_FIELD_NUMBER: _ClassVar[int]
    mean_squared_error: MeanSquaredError
    cross_entropy: CrossEntropy
    def __init__(self, mean_squared_error: _Optional[_Union[MeanSquaredError, _Mapping]] = ..., cross_entropy: _Optional[_Union[CrossEntropy, _Mapping]] = ...) -> None: ...

class MeanSquaredError(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CrossEntropy(_message.Message):
    __slots__ = ("from_probabilities",)
    FROM_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    from_probabilities: bool
    def __init__(self, from_probabilities: _Optional[bool] = ...) -> None: ...

class Optimizer(_message.Message):
    __slots__ = ("sgd",)
    SGD_FIELD_NUMBER: _ClassVar[int]
    sgd: Sgd
    def __init__(self, sgd: _Optional[_Union[Sgd, _Mapping]] = ...) -> None: ...

class Sgd(_message.Message):
    __slots__ = ("learning_rate",)
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    def __init__(self, learning_rate: _Optional[float] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("inputs", "targets")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    inputs: _tensor_pb2.TensorRef
    targets: _tensor_pb2.TensorRef
    def __init__(self, inputs: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ..., targets: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ...) -> None: ...

class EarlyStopping(_message.Message):
    __slots__ = ("monitor", "patience", "min_delta", "restore_best")
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    RESTORE_BEST_FIELD_NUMBER: _ClassVar[int]
    monitor: str
    patience: int
    min_delta: float
    restore_best: bool
    def __init__(self, monitor: _Optional[str] = ..., patience: _Optional[int] = ..., min_delta: _Optional[float] = ..., restore_best: _Optional[bool] = ...) -> None: ...

class KeepPolicy(_message.Message):
    __slots__ = ("best", "every")
    BEST_FIELD_NUMBER: _ClassVar[int]
    EVERY_FIELD_NUMBER: _ClassVar[int]
    best: bool
    every: int
    def __init__(self, best: _Optional[bool] = ..., every: _Optional[int] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("model", "loss", "optimizer", "train", "test", "epochs", "batch_size", "shuffle", "seed", "dtype", "device", "evaluate_every", "initial_weights", "early_stopping", "max_seconds", "keep")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    TEST_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_EVERY_FIELD_NUMBER: _ClassVar[int]
    INITIAL_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    model: ModelSpec
    loss: Loss
    optimizer: Optimizer
    train: Dataset
    test: Dataset
    epochs: int
    batch_size: int
    shuffle: bool
    seed: int
    dtype: _tensor_pb2.DataType
    device: Device
    evaluate_every: int
    initial_weights: _tensor_pb2.TensorRef
    early_stopping: EarlyStopping
    max_seconds: float
    keep: KeepPolicy
    def __init__(self, model: _Optional[_Union[ModelSpec, _Mapping]] = ..., loss: _Optional[_Union[Loss, _Mapping]] = ..., optimizer: _Optional[_Union[Optimizer, _Mapping]] = ..., train: _Optional[_Union[Dataset, _Mapping]] = ..., test: _Optional[_Union[Dataset, _Mapping]] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., shuffle: _Optional[bool] = ..., seed: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., device: _Optional[_Union[Device, str]] = ..., evaluate_every: _Optional[int] = ..., initial_weights: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ..., early_stopping: _Optional[_Union[EarlyStopping, _Mapping]] = ..., max_seconds: _Optional[float] = ..., keep: _Optional[_Union[KeepPolicy, _Mapping]] = ...) -> None: ...
