"""ModelService, which finds, downloads, runs and deletes trained models."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty
from grpc.aio import ServicerContext

from gradwire_proto.v1.metrics_pb2 import ClassCounts
from gradwire_proto.v1.model_service_pb2 import (
    DeleteModelRequest,
    DownloadModelRequest,
    DownloadModelResponse,
    GetClassCountsRequest,
    GetModelCardRequest,
    GetModelCardResponse,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    ModelView,
    PredictRequest,
    PredictResponse,
)
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceServicer
from gradwire_server.api.authentication import current_principal
from gradwire_server.api.downloads import check_offset, chunks_of, header_of
from gradwire_server.api.list_requests import parse_page
from gradwire_server.errors import ModelNotFoundError, invalid_field
from gradwire_server.jobs.model_cards import ModelCards
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.threads import in_thread


@dataclass(frozen=True)
class ModelService(ModelServiceServicer):
    """Finds, downloads, runs and deletes trained models."""

    models: ModelRegistry
    cards: ModelCards

    async def GetModel(self, request: GetModelRequest, context: ServicerContext[object, object]) -> Model:
        return await self.models.get(current_principal(), request.name, request.epoch)

    async def GetClassCounts(
        self, request: GetClassCountsRequest, context: ServicerContext[object, object]
    ) -> ClassCounts:
        return await self.models.class_counts(current_principal(), request.name, request.epoch)

    async def ListModels(
        self, request: ListModelsRequest, context: ServicerContext[object, object]
    ) -> ListModelsResponse:
        if request.view not in ModelView.values():
            raise invalid_field("view", f"must be MODEL_VIEW_BASIC or MODEL_VIEW_FULL, got {request.view}")
        models, token = await self.models.list(current_principal(), parse_page(request, {}))
        if request.view != ModelView.MODEL_VIEW_FULL:
            for model in models:
                model.ClearField("spec")
        return ListModelsResponse(models=models, next_page_token=token)

    async def GetModelCard(
        self, request: GetModelCardRequest, context: ServicerContext[object, object]
    ) -> GetModelCardResponse:
        return GetModelCardResponse(markdown=await self.cards.get(current_principal(), request.name))

    async def DownloadModel(
        self, request: DownloadModelRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[DownloadModelResponse]:
        check_offset(request.offset)
        file = await self.models.export(current_principal(), request.name, request.format, request.epoch)
        yield DownloadModelResponse(header=await header_of(file, request.offset, self.models.digests))
        async for chunk in chunks_of(file, request.offset):
            yield DownloadModelResponse(chunk=chunk)

    async def Predict(self, request: PredictRequest, context: ServicerContext[object, object]) -> PredictResponse:
        principal = current_principal()
        outputs = await self.models.predict(principal, request.name, request.inputs, request.epoch)
        return await in_thread(PredictResponse, outputs=outputs)

    async def DeleteModel(self, request: DeleteModelRequest, context: ServicerContext[object, object]) -> Empty:
        try:
            await self.models.delete(current_principal(), request.name)
        except ModelNotFoundError:
            if not request.allow_missing:
                raise
        return Empty()
