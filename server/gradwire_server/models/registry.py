"""Trained models: found, listed, deleted, run forward, and written as files."""

import asyncio
from collections.abc import Sequence

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.losses import MSE
from gradwire_engine.plans import Problem, ReferencePlan
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import TensorError, from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import Model, ModelFormat
from gradwire_proto.v1.tensor_pb2 import Tensor
from gradwire_server.api.list_requests import Page
from gradwire_server.errors import data_loss, invalid_argument, not_found
from gradwire_server.models.export import ModelFile, onnx_file, safetensors_file
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.store import queries
from gradwire_server.store.database import Database
from gradwire_worker.blob_reader import BlobLostError

# What Predict takes in one call.
MOST_PREDICT_BYTES = 32 << 20


class Models:
    """Reads models from the store and their weights from the blobs."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def find(self, name: str) -> Model:
        """Return the model of that name, "models/{model_id}"; NOT_FOUND where there is none."""
        model = await self._database.read(
            lambda connection: queries.find_model(connection, name.removeprefix("models/"))
        )
        if model is None or not name.startswith("models/"):
            raise not_found(name)
        return model

    async def list(self, page: Page) -> tuple[Sequence[Model], str]:
        """Return a page of models, and the token of the next."""
        return await self._database.read(lambda connection: queries.list_models(connection, page))

    async def delete(self, name: str) -> None:
        """Delete a model."""
        await self.find(name)
        await self._database.write(lambda connection: queries.delete_model(connection, name.removeprefix("models/")))

    async def predict(self, name: str, inputs: Tensor) -> Tensor:
        """Run the model forward on inputs of shape (rows, features)."""
        model = await self.find(name)
        array = _checked_inputs(model, inputs)
        return await asyncio.to_thread(self._predict, model, array)

    async def file(self, name: str, format_: ModelFormat) -> ModelFile:
        """Return the model as a file in that format."""
        model = await self.find(name)
        makers = {
            ModelFormat.MODEL_FORMAT_UNSPECIFIED: safetensors_file,
            ModelFormat.MODEL_FORMAT_SAFETENSORS: safetensors_file,
            ModelFormat.MODEL_FORMAT_ONNX: onnx_file,
        }
        if format_ not in makers:
            names = ", ".join(ModelFormat.Name(known) for known in makers)
            raise invalid_argument([("format", f"{format_} is none of {names}")])
        return await asyncio.to_thread(lambda: makers[format_](model, self._weights(model)))

    def _predict(self, model: Model, inputs: Array) -> Tensor:
        weights = self._weights(model)
        problem = Problem(network(model.spec), MSE(), weights.dtype)
        return to_tensor(ReferencePlan(problem, weights).predict(inputs))

    def _weights(self, model: Model) -> Array:
        try:
            return self._blobs.load(model.weights)
        except BlobLostError as error:
            raise data_loss(f"the weights of {model.name} cannot be read: {error}") from error


def _checked_inputs(model: Model, inputs: Tensor) -> Array:
    if len(inputs.data) > MOST_PREDICT_BYTES:
        description = f"has {len(inputs.data)} bytes, more than {MOST_PREDICT_BYTES}: send the rows in several calls"
        raise invalid_argument([("inputs", description)])
    try:
        array = from_tensor(inputs)
    except TensorError as error:
        raise invalid_argument([("inputs", str(error))]) from error
    features = network(model.spec).in_features
    if array.ndim != 2 or array.shape[1] != features:
        raise invalid_argument([("inputs", f"must have shape (rows, {features}), got {array.shape}")])
    if not np.all(np.isfinite(array)):
        raise invalid_argument([("inputs", "must be finite, but hold NaN or an infinity")])
    return array
