"""ModelService."""

import hashlib
from collections.abc import AsyncIterator

from grpc.aio import ServicerContext

from gradwire_proto.v1.model_service_pb2 import (
    DeleteModelRequest,
    DeleteModelResponse,
    DownloadModelRequest,
    DownloadModelResponse,
    FileHeader,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    PredictRequest,
    PredictResponse,
)
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceServicer
from gradwire_server.api.list_requests import parse_page
from gradwire_server.models.registry import Models

_CHUNK_BYTES = 1 << 20


class ModelService(ModelServiceServicer):
    """Gives trained models out."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def GetModel(self, request: GetModelRequest, context: ServicerContext[object, object]) -> Model:
        return await self._models.find(request.name)

    async def ListModels(
        self, request: ListModelsRequest, context: ServicerContext[object, object]
    ) -> ListModelsResponse:
        models, token = await self._models.list(parse_page(request, {}))
        return ListModelsResponse(models=models, next_page_token=token)

    async def DownloadModel(
        self, request: DownloadModelRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[DownloadModelResponse]:
        file = await self._models.file(request.name, request.format)
        digest = hashlib.sha256(file.data).hexdigest()
        yield DownloadModelResponse(header=FileHeader(file_name=file.name, size_bytes=len(file.data), sha256=digest))
        for start in range(0, len(file.data), _CHUNK_BYTES):
            yield DownloadModelResponse(chunk=file.data[start : start + _CHUNK_BYTES])

    async def Predict(self, request: PredictRequest, context: ServicerContext[object, object]) -> PredictResponse:
        return PredictResponse(outputs=await self._models.predict(request.name, request.inputs))

    async def DeleteModel(
        self, request: DeleteModelRequest, context: ServicerContext[object, object]
    ) -> DeleteModelResponse:
        await self._models.delete(request.name)
        return DeleteModelResponse()
