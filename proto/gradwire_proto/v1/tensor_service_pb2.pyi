import datetime

from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
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

class StoredTensor(_message.Message):
    __slots__ = ("name", "size_bytes", "use_time", "referenced")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    USE_TIME_FIELD_NUMBER: _ClassVar[int]
    REFERENCED_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    use_time: _timestamp_pb2.Timestamp
    referenced: bool
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., referenced: _Optional[bool] = ...) -> None: ...

class ListTensorsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTensorsResponse(_message.Message):
    __slots__ = ("tensors", "next_page_token")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[StoredTensor]
    next_page_token: str
    def __init__(self, tensors: _Optional[_Iterable[_Union[StoredTensor, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteTensorRequest(_message.Message):
    __slots__ = ("name", "allow_missing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    name: str
    allow_missing: bool
    def __init__(self, name: _Optional[str] = ..., allow_missing: _Optional[bool] = ...) -> None: ...
