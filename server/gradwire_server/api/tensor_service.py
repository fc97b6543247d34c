"""TensorService, which finds missing tensors, receives uploads, and lists and deletes tensors."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty
from grpc.aio import ServicerContext

from gradwire_engine.spec.tensors import TensorError, TensorType, tensor_type
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.tensor_service_pb2 import (
    DeleteTensorRequest,
    FindMissingTensorsRequest,
    FindMissingTensorsResponse,
    ListTensorsRequest,
    ListTensorsResponse,
    MissingTensor,
    UploadTensorRequest,
    UploadTensorResponse,
)
from gradwire_proto.v1.tensor_service_pb2_grpc import TensorServiceServicer
from gradwire_server.api.authentication import current_principal
from gradwire_server.api.list_requests import page_size
from gradwire_server.errors import OffsetOutOfRangeError, TensorNotFoundError, invalid_field
from gradwire_server.limits import MAX_CHUNK_BYTES, MAX_TENSORS_PER_REQUEST
from gradwire_server.resource_names import digest_in
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.tensor_quota import TensorQuota
from gradwire_server.storage.tensors import Tensors
from gradwire_server.storage.uploads import Upload, Uploads
from gradwire_server.threads import in_thread

Requests = AsyncIterator[UploadTensorRequest]


@dataclass(frozen=True)
class TensorService(TensorServiceServicer):
    """Finds missing tensors, receives uploads, and lists and deletes tensors."""

    blobs: BlobStore
    uploads: Uploads
    tensors: Tensors
    quota: TensorQuota

    async def FindMissingTensors(
        self, request: FindMissingTensorsRequest, context: ServicerContext[object, object]
    ) -> FindMissingTensorsResponse:
        if len(request.tensors) > MAX_TENSORS_PER_REQUEST:
            raise invalid_field(
                "tensors", f"must have at most {MAX_TENSORS_PER_REQUEST} entries, got {len(request.tensors)}"
            )
        references: dict[str, TensorRef] = {}
        for position, reference in enumerate(request.tensors):
            _checked_type(f"tensors[{position}]", reference)
            references.setdefault(reference.sha256, reference)
        return await in_thread(self._missing, references)

    def _missing(self, references: Mapping[str, TensorRef]) -> FindMissingTensorsResponse:
        return FindMissingTensorsResponse(
            missing=[
                MissingTensor(tensor=reference, received_bytes=self.uploads.received_bytes(sha256))
                for sha256, reference in references.items()
                if not self.blobs.touch(sha256)
            ]
        )

    async def UploadTensor(
        self, request_iterator: Requests, context: ServicerContext[object, object]
    ) -> UploadTensorResponse:
        first = await anext(request_iterator, UploadTensorRequest())
        if first.WhichOneof("part") != "header":
            raise invalid_field("header", "must be in the first message")
        header = first.header
        size = _checked_type("header.tensor", header.tensor).size_bytes
        if not 0 <= header.offset <= size:
            received = self.uploads.received_bytes(header.tensor.sha256)
            text = f"header.offset must be 0 to {size}, got {header.offset}. {received} bytes have arrived"
            raise OffsetOutOfRangeError("header.offset", text, offset=header.offset, received_bytes=received)
        await self.quota.require(header.tensor.sha256, size - header.offset)
        async with self.uploads.receive(header.tensor.sha256, size, header.offset) as upload:
            if upload is not None:
                await _receive_chunks(request_iterator, upload)
                if not await upload.finish():
                    description = (
                        f"ended after {upload.received_bytes} of {size} bytes. "
                        f"Upload the rest from offset {upload.received_bytes}"
                    )
                    raise invalid_field("chunk", description, received_bytes=upload.received_bytes)
        return UploadTensorResponse(tensor=header.tensor, size_bytes=size)

    async def ListTensors(
        self, request: ListTensorsRequest, context: ServicerContext[object, object]
    ) -> ListTensorsResponse:
        size = page_size(request.page_size)
        after = digest_in(request.page_token)
        if request.page_token and after is None:
            raise invalid_field("page_token", "must be the next_page_token of an earlier call")
        listed, more = await self.tensors.list(current_principal(), after or "", size)
        response = ListTensorsResponse()
        for each in listed:
            message = response.tensors.add(
                name=f"tensors/{each.blob.sha256}", size_bytes=each.blob.size, referenced=each.referenced
            )
            message.use_time.FromMilliseconds(int(each.blob.used * 1000))
        if more:
            response.next_page_token = response.tensors[-1].name
        return response

    async def DeleteTensor(self, request: DeleteTensorRequest, context: ServicerContext[object, object]) -> Empty:
        try:
            await self.tensors.delete(current_principal(), request.name)
        except TensorNotFoundError:
            if not request.allow_missing:
                raise
        self.quota.forget()
        return Empty()


async def _receive_chunks(requests: Requests, upload: Upload) -> None:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise invalid_field("chunk", "must be in every message after the first")
        if len(request.chunk) > MAX_CHUNK_BYTES:
            raise invalid_field("chunk", f"must have at most {MAX_CHUNK_BYTES} bytes, got {len(request.chunk)}")
        await upload.write(request.chunk)


def _checked_type(field: str, reference: TensorRef) -> TensorType:
    try:
        return tensor_type(reference)
    except TensorError as error:
        raise invalid_field(field, str(error)) from error
