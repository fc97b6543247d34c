from gradwire_proto.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FindMissingTensorsRequest(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.TensorRef]
    def __init__(self, tensors: _Optional[_Iterable[_Union[_tensor_pb2.TensorRef, _Mapping]]] = ...) -> None: ...

class FindMissingTensorsResponse(_message.Message):
    __slots__ = ("missing",)
    MISSING_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedCompositeFieldContainer[MissingTensor]
    def __init__(self, missing: _Optional[_Iterable[_Union[MissingTensor, _Mapping]]] = ...) -> None: ...

class MissingTensor(_message.Message):
    __slots__ = ("tensor", "received_bytes")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorRef
    received_bytes: int
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ..., received_bytes: _Optional[int] = ...) -> None: ...

class UploadTensorRequest(_message.Message):
    __slots__ = ("header", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    chunk: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("tensor", "offset")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorRef
    offset: int
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadTensorResponse(_message.Message):
    __slots__ = ("tensor", "size_bytes")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    tensor: _tensor_pb2.TensorRef
    size_bytes: int
    def __init__(self, tensor: _Optional[_Union[_tensor_pb2.TensorRef, _Mapping]] = ..., size_bytes: _Optional[int] = ...) -> None: ...
