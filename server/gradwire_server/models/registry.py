"""The registry of trained models, which finds, lists, runs, exports and deletes models."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.losses import MSE
from gradwire_engine.plans import Problem, ReferencePlan
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import TensorError, from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import Model, ModelFormat
from gradwire_proto.v1.tensor_pb2 import Tensor
from gradwire_server.errors import ModelNotFoundError, WeightsDamagedError, invalid_field
from gradwire_server.models.export import ModelFile, onnx_file, safetensors_file
from gradwire_server.principal import Principal
from gradwire_server.resource_names import id_in
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.store import model_queries
from gradwire_server.store.database import Database
from gradwire_server.store.paging import Page
from gradwire_worker.blob_reader import BlobLostError

# The maximum size of the inputs of one Predict call.
MAX_PREDICT_BYTES = 32 << 20

_EXPORTERS = {
    ModelFormat.MODEL_FORMAT_UNSPECIFIED: safetensors_file,
    ModelFormat.MODEL_FORMAT_SAFETENSORS: safetensors_file,
    ModelFormat.MODEL_FORMAT_ONNX: onnx_file,
}


class ModelRegistry:
    """Reads models from the database, and their weights from the blob store."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def get(self, _principal: Principal, model_name: str) -> Model:
        """Return the model with the name "models/{model_id}", or raise ModelNotFoundError."""
        model_id = id_in("models", model_name)
        if model_id is None:
            raise ModelNotFoundError(model_name)
        model = await self._database.read(lambda connection: model_queries.find_model(connection, model_id))
        if model is None:
            raise ModelNotFoundError(model_name)
        return model

    async def list(self, _principal: Principal, page: Page) -> tuple[Sequence[Model], str]:
        """Return a page of models, and the token of the next page."""
        return await self._database.read(lambda connection: model_queries.list_models(connection, page))

    async def delete(self, principal: Principal, model_name: str) -> None:
        """Delete a model, or raise ModelNotFoundError."""
        await self.get(principal, model_name)
        model_id = model_name.removeprefix("models/")
        await self._database.write(lambda connection: model_queries.delete_model(connection, model_id))

    async def predict(self, principal: Principal, model_name: str, inputs: Tensor) -> Tensor:
        """Run the forward pass of a model.

        Args:
            principal: The caller.
            model_name: The model.
            inputs: An array of shape (rows, features).

        Returns:
            The outputs of the last layer, of shape (rows, outputs).

        Raises:
            InvalidFieldsError: The inputs do not match the model, are not finite, or are too large.
            WeightsDamagedError: The stored weights cannot be read.
        """
        model = await self.get(principal, model_name)
        array = _checked_inputs(model, inputs)
        return await asyncio.to_thread(self._predict, model, array)

    async def export(self, principal: Principal, model_name: str, format_: ModelFormat) -> ModelFile:
        """Export a model to a file.

        Raises:
            InvalidFieldsError: The format is unknown.
            WeightsDamagedError: The stored weights cannot be read.
        """
        model = await self.get(principal, model_name)
        if format_ not in _EXPORTERS:
            names = ", ".join(ModelFormat.Name(known) for known in _EXPORTERS)
            raise invalid_field("format", f"must be one of {names}, got {format_}")
        return await asyncio.to_thread(lambda: _EXPORTERS[format_](model, self._weights_file(model)))

    def _predict(self, model: Model, inputs: Array) -> Tensor:
        weights = self._weights(model)
        problem = Problem(network(model.spec), MSE(), weights.dtype)
        return to_tensor(ReferencePlan(problem, weights).predict(inputs))

    def _weights_file(self, model: Model) -> Path:
        try:
            return self._blobs.fetch(model.weights)
        except BlobLostError as error:
            raise WeightsDamagedError(model.name, str(error)) from error

    def _weights(self, model: Model) -> Array:
        try:
            return self._blobs.load(model.weights)
        except BlobLostError as error:
            raise WeightsDamagedError(model.name, str(error)) from error


def _checked_inputs(model: Model, inputs: Tensor) -> Array:
    if len(inputs.data) > MAX_PREDICT_BYTES:
        description = f"has {len(inputs.data)} bytes, more than {MAX_PREDICT_BYTES}. Send the rows in several calls"
        raise invalid_field("inputs", description)
    try:
        array = from_tensor(inputs)
    except TensorError as error:
        raise invalid_field("inputs", str(error)) from error
    features = network(model.spec).in_features
    if array.ndim != 2 or array.shape[1] != features:
        raise invalid_field("inputs", f"must have shape (rows, {features}), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise invalid_field("inputs", "must be finite, but contains NaN or an infinity")
    return array
