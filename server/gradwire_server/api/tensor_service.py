"""DatasetService."""

from collections.abc import AsyncIterator

from grpc.aio import ServicerContext

from gradwire_engine.spec.tensors import TensorError, TensorType, tensor_type
from gradwire_proto.v1.dataset_service_pb2 import (
    FindMissingTensorsRequest,
    FindMissingTensorsResponse,
    MissingTensor,
    UploadTensorRequest,
    UploadTensorResponse,
)
from gradwire_proto.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.errors import invalid_argument, out_of_range
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.uploads import Uploads

_MOST_TENSORS = 1000

Requests = AsyncIterator[UploadTensorRequest]


class DatasetService(DatasetServiceServicer):
    """Takes tensors in."""

    def __init__(self, blobs: BlobStore, uploads: Uploads) -> None:
        self._blobs = blobs
        self._uploads = uploads

    async def FindMissingTensors(
        self, request: FindMissingTensorsRequest, context: ServicerContext[object, object]
    ) -> FindMissingTensorsResponse:
        if len(request.tensors) > _MOST_TENSORS:
            raise invalid_argument([("tensors", f"has {len(request.tensors)} entries, more than {_MOST_TENSORS}")])
        missing: dict[str, MissingTensor] = {}
        for position, reference in enumerate(request.tensors):
            _checked(f"tensors[{position}]", reference)
            if not self._blobs.keep(reference.sha256):
                received = self._uploads.received_bytes(reference.sha256)
                missing.setdefault(reference.sha256, MissingTensor(tensor=reference, received_bytes=received))
        return FindMissingTensorsResponse(missing=missing.values())

    async def UploadTensor(
        self, request_iterator: Requests, context: ServicerContext[object, object]
    ) -> UploadTensorResponse:
        first = await anext(request_iterator, UploadTensorRequest())
        if first.WhichOneof("part") != "header":
            raise invalid_argument([("header", "must be in the first message")])
        header = first.header
        size = _checked("header.tensor", header.tensor).size_bytes
        if not 0 <= header.offset <= size:
            raise out_of_range("header.offset", f"must be 0..{size}, got {header.offset}")
        async with self._uploads.receive(header.tensor.sha256, size, header.offset) as upload:
            if upload is not None:
                async for request in request_iterator:
                    if request.WhichOneof("part") != "chunk":
                        raise invalid_argument([("chunk", "must be in every message but the first")])
                    await upload.write(request.chunk)
                if not await upload.finish():
                    received = self._uploads.received_bytes(header.tensor.sha256)
                    description = f"brought the tensor to {received} of {size} bytes: upload the rest from there"
                    raise invalid_argument([("chunk", description)])
        return UploadTensorResponse(tensor=header.tensor, stored_bytes=size)


def _checked(field: str, reference: TensorRef) -> TensorType:
    try:
        return tensor_type(reference)
    except TensorError as error:
        raise invalid_argument([(field, str(error))]) from error
