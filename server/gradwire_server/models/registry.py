"""The registry of trained models and kept epochs, which finds, lists, runs, exports and deletes models."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection

from gradwire_engine.backend import Array
from gradwire_engine.class_counts import MAX_COUNTED_CLASSES
from gradwire_engine.inference import blocks_of, forward
from gradwire_engine.network import Network
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import TensorError, from_tensor, numpy_dtype, to_tensor
from gradwire_proto.v1.metrics_pb2 import ClassCounts
from gradwire_proto.v1.model_service_pb2 import Model, ModelFormat
from gradwire_proto.v1.tensor_pb2 import Tensor, TensorRef
from gradwire_proto.v1.training_service_pb2 import Event
from gradwire_server.errors import (
    EpochNotKeptError,
    JobNotFoundError,
    ModelNotFoundError,
    NoClassCountsError,
    ServerBusyError,
    WeightsDamagedError,
    invalid_field,
)
from gradwire_server.limits import MAX_PREDICT_BYTES
from gradwire_server.models.digests import Digests
from gradwire_server.models.export import ModelFile, onnx_file, safetensors_file
from gradwire_server.principal import Principal
from gradwire_server.resource_names import id_in
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.store import class_count_queries, job_queries, model_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.store.paging import Page
from gradwire_server.threads import in_thread
from gradwire_worker.blob_reader import BlobLostError

_log = logging.getLogger(__name__)

T = TypeVar("T")

# A call with more than one row computes at most this many values in its widest layer, and multiplies at most this many
# pairs of numbers: a few seconds on one core.
_MAX_PREDICT_VALUES = 2**28
_MAX_PREDICT_PRODUCTS = 2**37
# The maximum number of calls that compute at the same time, and the maximum total size of the inputs of waiting calls.
_CONCURRENT_PREDICTIONS = 2
_MAX_WAITING_BYTES = 128 << 20

_EXPORTERS = {
    ModelFormat.MODEL_FORMAT_UNSPECIFIED: safetensors_file,
    ModelFormat.MODEL_FORMAT_SAFETENSORS: safetensors_file,
    ModelFormat.MODEL_FORMAT_ONNX: onnx_file,
}


def check_format(format_: ModelFormat) -> None:
    """Raise InvalidFieldsError unless models can be exported in a format."""
    if format_ not in _EXPORTERS:
        names = ", ".join(ModelFormat.Name(known) for known in _EXPORTERS)
        raise invalid_field("format", f"must be one of {names}, got {format_}")


class ModelRegistry:
    """Reads models from the database, and their weights from the blob store.

    Attributes:
        digests: The digests of exported models.
    """

    def __init__(self, database: Database, blobs: BlobStore, checkpoints: CheckpointStore) -> None:
        self._database = database
        self._blobs = blobs
        self._checkpoints = checkpoints
        self._predicting = asyncio.Semaphore(_CONCURRENT_PREDICTIONS)
        self._waiting_bytes = 0
        self.digests = Digests()

    async def get(self, principal: Principal, model_name: str, epoch: int = 0) -> Model:
        """Return the model with the name "models/{model_id}".

        Args:
            principal: The caller.
            model_name: The model.
            epoch: If not 0, the model has the weights that the job of the same name has kept after this epoch.

        Raises:
            ModelNotFoundError: The model does not exist.
            JobNotFoundError: The job does not exist.
            EpochNotKeptError: The weights of the epoch are not kept.
            WeightsDamagedError: The weights of the epoch cannot be read.
            InvalidFieldsError: The epoch is negative.
        """
        model_id = id_in("models", model_name)
        if model_id is None:
            raise ModelNotFoundError(model_name)
        if epoch < 0:
            raise invalid_field("epoch", f"must be at least 1, or 0 for the epoch of the model, got {epoch}")
        if epoch:
            return await self._kept(principal, model_id, epoch)
        model = await self._database.read(lambda connection: model_queries.find_model(connection, model_id))
        if model is None:
            raise ModelNotFoundError(model_name)
        return model

    async def _kept(self, principal: Principal, model_id: str, epoch: int) -> Model:
        """Return the model that a job has kept after an epoch. Its weights are copied into the blob store."""
        record, event = await self._database.read(lambda connection: _kept_epoch(connection, model_id, epoch))
        job, is_deleted = record.job, False
        if job.model:
            try:
                model = await self.get(principal, job.model)
            except ModelNotFoundError:
                is_deleted = True
            else:
                if model.epoch.epoch == epoch:
                    return model
        weights = await in_thread(self._checkpoints.as_tensor, record.job_key, epoch, job.spec)
        if weights is not None:
            return Model(
                name=f"models/{model_id}",
                job=job.name,
                spec=job.spec.model,
                weights=weights,
                train=job.spec.train,
                test=job.spec.test if job.spec.HasField("test") else None,
                epoch=event.epoch,
                create_time=event.time,
                labels=job.labels,
                architecture=job.architecture,
            )
        latest, _ = await self._database.read(lambda connection: _kept_epoch(connection, model_id, epoch))
        if latest.job.last_sequence != job.last_sequence:
            return await self._kept(principal, model_id, epoch)
        if is_deleted:  # The weights of this epoch were the weights of the model.
            raise ModelNotFoundError(job.model)
        raise WeightsDamagedError(f"models/{model_id}", f"the stored weights of epoch {epoch} are missing or damaged")

    async def class_counts(self, principal: Principal, model_name: str, epoch: int = 0) -> ClassCounts:
        """Return how a model predicts each class.

        Args:
            principal: The caller.
            model_name: The model.
            epoch: A kept epoch of its job, or 0; see `get`.

        Raises:
            NoClassCountsError: The model is not a classifier, has too many classes, or is from an older version.
        """
        model = await self.get(principal, model_name, epoch)
        model_id = model_name.removeprefix("models/")

        def find(connection: Connection) -> ClassCounts | None:
            if epoch:
                return class_count_queries.find_of_job(connection, model_id, epoch)
            return class_count_queries.find_of_model(connection, model_id)

        counts = await self._database.read(find)
        if counts is None:
            raise NoClassCountsError(model.name, _why_not_counted(model))
        counts.class_names[:] = model.spec.class_names
        return counts

    async def list(self, _principal: Principal, page: Page) -> tuple[Sequence[Model], str]:
        """Return a page of models and the token of the next page."""
        return await self._database.read(lambda connection: model_queries.list_models(connection, page))

    async def delete(self, principal: Principal, model_name: str) -> None:
        """Delete a model, or raise ModelNotFoundError."""
        await self.get(principal, model_name)
        model_id = model_name.removeprefix("models/")
        await self._database.write(lambda connection: model_queries.delete_model(connection, model_id))
        _log.info("%s: deleted", model_name)

    async def predict(self, principal: Principal, model_name: str, inputs: Tensor, epoch: int = 0) -> Tensor:
        """Run the forward pass of a model.

        Args:
            principal: The caller.
            model_name: The model.
            inputs: An array of shape (rows, features).
            epoch: A kept epoch of its job, or 0; see `get`.

        Returns:
            The outputs of the last layer, of shape (rows, outputs).

        Raises:
            InvalidFieldsError: The inputs do not match the model, are not finite, or are too large.
            ServerBusyError: Too many calls are already waiting.
            WeightsDamagedError: The stored weights cannot be read.
        """
        model = await self.get(principal, model_name, epoch)
        net, dtype = network(model.spec), numpy_dtype(model.weights.dtype)
        size = len(inputs.data)  # Each access copies the data.
        _check_shape(net, inputs, size, dtype.itemsize)
        if self._waiting_bytes + size > _MAX_WAITING_BYTES:
            raise ServerBusyError("too many predictions are running or waiting")
        self._waiting_bytes += size
        try:
            async with self._predicting:
                array, weights = await in_thread(lambda: (_checked_inputs(inputs), _weights(model, self._blobs.load)))
                outputs = np.empty((len(array), net.out_features), dtype)
                for rows in blocks_of(net, len(array), dtype.itemsize):
                    # One block at a time, so that the work for a cancelled call ends after the current block.
                    outputs[rows] = await in_thread(forward, net, weights, array[rows])
                return await in_thread(to_tensor, outputs)
        finally:
            self._waiting_bytes -= size

    async def export(self, principal: Principal, model_name: str, format_: ModelFormat, epoch: int = 0) -> ModelFile:
        """Export a model to a file.

        Args:
            principal: The caller.
            model_name: The model.
            format_: The format of the file.
            epoch: A kept epoch of its job, or 0; see `get`.

        Raises:
            InvalidFieldsError: The format is unknown.
            WeightsDamagedError: The stored weights cannot be read.
        """
        return await self.export_model(await self.get(principal, model_name, epoch), format_)

    async def export_model(self, model: Model, format_: ModelFormat) -> ModelFile:
        """Export a model whose weights are in the blob store to a file, as `export` does."""
        check_format(format_)
        return await in_thread(lambda: _EXPORTERS[format_](model, _weights(model, self._blobs.fetch)))


def _kept_epoch(connection: Connection, job_id: str, epoch: int) -> tuple[JobRecord, Event]:
    """Return a job that keeps the weights of an epoch, and the event of the epoch."""
    record = job_queries.find_job(connection, job_id)
    if record is None:
        raise JobNotFoundError(f"jobs/{job_id}")
    if epoch not in record.job.kept_epochs:
        raise EpochNotKeptError(record.job.name, epoch, record.job.kept_epochs)
    return record, job_queries.epoch_event(connection, record.job_key, epoch)


def _why_not_counted(model: Model) -> str:
    metrics = model.epoch.train if model.epoch.HasField("train") else model.epoch.test
    numbers = "it predicts numbers, not classes"
    if metrics.HasField("mean_absolute_error"):
        return numbers
    classes = network(model.spec).out_features
    if classes > MAX_COUNTED_CLASSES:
        return f"it has {classes:,} classes, more than {MAX_COUNTED_CLASSES:,}"
    if metrics.HasField("accuracy"):
        return "it was trained by an older version of gradwire"
    return numbers  # The epoch was not evaluated.


def _weights(model: Model, read: Callable[[TensorRef], T]) -> T:
    """Call `read` on the weights of a model. Raises WeightsDamagedError."""
    try:
        return read(model.weights)
    except BlobLostError as error:
        raise WeightsDamagedError(model.name, str(error)) from error


def _check_shape(net: Network, inputs: Tensor, size: int, itemsize: int) -> None:
    """Check the inputs of a prediction before it is computed."""
    if size > MAX_PREDICT_BYTES:
        description = f"has {size} bytes, more than {MAX_PREDICT_BYTES}. Send the rows in several calls"
        raise invalid_field("inputs", description)
    # If the shape is very long, show only its beginning.
    if len(inputs.shape) != 2 or inputs.shape[1] != net.in_features:
        shape = ", ".join(map(str, inputs.shape[:4])) + (", ..." if len(inputs.shape) > 4 else "")
        raise invalid_field("inputs", f"must have shape (rows, {net.in_features}), got ({shape})")
    rows, fits = inputs.shape[0], _rows_that_fit(net, itemsize)
    if rows > fits:
        description = (
            f"has {rows} rows, but a call to this model can have at most {fits}. Send the rows in several calls"
        )
        raise invalid_field("inputs", description, max_rows=fits)


def _rows_that_fit(net: Network, itemsize: int) -> int:
    """Return the maximum number of rows in one Predict call, which is at least one."""
    limits = (
        MAX_PREDICT_BYTES // (net.out_features * itemsize),
        _MAX_PREDICT_VALUES // net.widest,
        _MAX_PREDICT_PRODUCTS // net.size,
    )
    return max(1, min(limits))


def _checked_inputs(inputs: Tensor) -> Array:
    try:
        array = from_tensor(inputs)
    except TensorError as error:
        raise invalid_field("inputs", str(error)) from error
    if not np.all(np.isfinite(array)):
        raise invalid_field("inputs", "must be finite, but contains NaN or an infinity")
    return array
