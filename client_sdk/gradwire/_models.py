"""client.models, which finds, downloads, runs and deletes models. Models is the blocking form of AsyncModels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from gradwire._arrays import to_array
from gradwire._blocking import Portal, blocking
from gradwire._confusion_matrix import ConfusionMatrix, fetch_classification_report, fetch_confusion_matrix
from gradwire._exceptions import InvalidArgumentError, NotFoundError
from gradwire._info import ModelInfo, model_info
from gradwire._model_files import download_file, fetch_model, resolve_target
from gradwire._names import epoch_number, model_resource
from gradwire._paging import collect
from gradwire._paths import to_path
from gradwire._transport import Transport
from gradwire._types import ModelFormat, TransferProgress
from gradwire_engine.backend import Array
from gradwire_engine.classification import ClassificationReport
from gradwire_engine.module import Module
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import (
    DeleteModelRequest,
    GetModelCardRequest,
    GetModelRequest,
    ListModelsRequest,
    ListModelsResponse,
    Model,
    PredictRequest,
)
from gradwire_proto.v1.spec_pb2 import Loss
from gradwire_proto.v1.training_service_pb2 import GetJobRequest

# The approximate maximum size of the rows in one Predict call, in bytes.
_PREDICT_BYTES = 8 << 20

# Inside the classes, `list` refers to the method.
ModelInfoList: TypeAlias = list[ModelInfo]


class ModelTable(list[ModelInfo]):
    """A list of models, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from gradwire._notebook import models_html  # noqa: PLC0415  (only for notebooks)

        return models_html(self)


class AsyncModels:
    """The trained models on a server, available as `client.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, name: str, epoch: int | None = None) -> ModelInfo:
        """Return a model's description.

        Args:
            name: The model's name, the same as the name of the job that trained it.
            epoch: One of the `kept_epochs` of that job, which may still be running. Default: the epoch of the model.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
        """
        request = GetModelRequest(name=model_resource(name), epoch=epoch_number(epoch))
        return model_info(await self._transport.call(self._transport.models.GetModel, request))

    async def list(self, filter: str | None = None, limit: int | None = None) -> ModelInfoList:  # noqa: A002
        """Return models. The newest models come first.

        Args:
            filter: Conditions joined by AND, for example 'name : "digits"' (contains) or 'labels.team = "vision"'.
                None returns all models.
            limit: The maximum number of models, or None for no limit.

        Raises:
            InvalidArgumentError: The filter is invalid.
        """
        method = self._transport.models.ListModels
        messages = await collect(self._transport, method, ListModelsRequest(filter=filter or ""), _models_of, limit)
        return ModelTable(model_info(message) for message in messages)

    async def load(self, name: str, epoch: int | None = None) -> Module:
        """Download a model and return it as a Module that is rebuilt from its spec.

        Args:
            name: The model's name.
            epoch: A kept epoch, as for `get`.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
        """
        message, weights = await fetch_model(self._transport, model_resource(name), epoch_number(epoch))
        return build(message.spec, weights)

    async def predict(
        self,
        name: str,
        X: ArrayLike,
        *,
        classes: bool = False,
        probabilities: bool = False,
        epoch: int | None = None,
    ) -> Array:
        """Run a model on the server.

        Args:
            name: The model's name.
            X: Inputs of shape (rows, features).
            classes: Whether to return the class of each row instead of the outputs.
            probabilities: Whether to return the probability of each class (the softmax of the outputs) instead of the
                outputs.
            epoch: A kept epoch, as for `get`.

        Returns:
            The outputs of the last layer, of shape (rows, outputs). For a classifier that outputs logits, these are the
            logits. With `classes`, the class name of each row, of shape (rows,), or the index if the classes have no
            names.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
            InvalidArgumentError: The inputs do not match the model or are not finite, both `classes` and
                `probabilities` are set, or one of them is set for a model that is not a classifier.
        """
        if classes and probabilities:
            raise InvalidArgumentError("classes and probabilities cannot be used together. Pass only one of them.")
        array = to_array(X, "inputs")
        if array.ndim != 2:
            raise InvalidArgumentError(f"X: must have shape (rows, features), got {array.shape}")
        rows = max(1, _PREDICT_BYTES // (array.itemsize * array.shape[1]))
        start, outputs = 0, []
        while start < len(array):
            inputs = to_tensor(array[start : start + rows])
            request = PredictRequest(name=model_resource(name), inputs=inputs, epoch=epoch_number(epoch))
            try:
                response = await self._transport.call(self._transport.models.Predict, request)
            except InvalidArgumentError as error:
                fits = int(error.metadata.get("max_rows", rows))
                if fits >= rows:
                    raise
                rows = fits
                continue
            outputs.append(from_tensor(response.outputs))
            start += rows
        result = np.concatenate(outputs)
        if probabilities:
            _, outputs_are_logits = await self._classifier(name)
            return softmax(result) if outputs_are_logits else result
        if not classes:
            return result
        model = await self.get(name, epoch)
        metrics = model.epoch.train or model.epoch.test
        if result.shape[1] == 1 or (metrics is not None and metrics.mean_absolute_error is not None):
            raise InvalidArgumentError(
                f"classes: model {model.name!r} predicts numbers, not classes. Leave out classes=."
            )
        class_names = model.class_names
        indices = result.argmax(axis=1)
        return np.array(class_names)[indices] if class_names else indices

    async def _classifier(self, name: str) -> tuple[Model, bool]:
        """Return a model that was trained with CrossEntropy, and whether its outputs are logits.

        Raises:
            InvalidArgumentError: The model was not trained with CrossEntropy.
        """
        request = GetModelRequest(name=model_resource(name))
        model = await self._transport.call(self._transport.models.GetModel, request)
        loss: Loss | None = None
        with suppress(NotFoundError):  # The job was deleted.
            job = await self._transport.call(self._transport.training.GetJob, GetJobRequest(name=model.job))
            loss = job.spec.loss
        is_classifier = any(each.HasField("accuracy") for each in (model.epoch.train, model.epoch.test))
        if not is_classifier or (loss is not None and not loss.HasField("cross_entropy")):
            raise InvalidArgumentError(
                f"probabilities: model {name!r} was not trained with CrossEntropy, so its outputs are not logits"
            )
        return model, loss is None or not loss.cross_entropy.from_probabilities

    async def confusion_matrix(self, name: str, epoch: int | None = None) -> ConfusionMatrix:
        """Return how many rows of each class a model predicts as each class.

        The worker counted the rows of the test set, or of the training set if the job had no test set.

        Args:
            name: The model's name.
            epoch: A kept epoch, as for `get`.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
            FailedPreconditionError: The model is not a classifier, or has more than 100 classes.
        """
        return await fetch_confusion_matrix(self._transport, model_resource(name), epoch_number(epoch))

    async def classification_report(self, name: str, epoch: int | None = None) -> ClassificationReport:
        """Return the precision, recall and F1 of each class, as predicted by a model.

        Args:
            name: The model's name.
            epoch: A kept epoch, as for `get`.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
            FailedPreconditionError: The model is not a classifier, or has more than 1000 classes.
        """
        return await fetch_classification_report(self._transport, model_resource(name), epoch_number(epoch))

    async def card(self, name: str) -> str:
        """Return a description of a model as Markdown: layers, settings, data, metrics and curve.

        The settings and the curve are those of the job, and are missing if the job was deleted.

        Args:
            name: The model's name.

        Raises:
            NotFoundError: No model has this name.
        """
        request = GetModelCardRequest(name=model_resource(name))
        return (await self._transport.call(self._transport.models.GetModelCard, request)).markdown

    async def download(
        self,
        name: str,
        path: str | Path = ".",
        format: ModelFormat | None = None,  # noqa: A002
        epoch: int | None = None,
        *,
        probabilities: bool = False,
        on_download_progress: TransferProgress | None = None,
    ) -> Path:
        """Download a model as a file. An interrupted download continues where it stopped.

        Args:
            name: The model's name.
            path: The path of the file, or a folder. In a folder, the file is named after the model.
            format: "safetensors", "npz" or "onnx". Default: derived from the file suffix, or "safetensors" for a
                folder.
            epoch: A kept epoch, as for `get`.
            probabilities: Whether an ONNX file gets a second output, "probabilities", which is the softmax of its
                "outputs".
            on_download_progress: A function that is called with (received_bytes, total_bytes) after each chunk.

        Returns:
            The path of the file.

        Raises:
            NotFoundError: No model has this name, or the weights of the epoch are not kept.
            InvalidArgumentError: `probabilities` is set for a model that is not a classifier with logits, or for a
                format other than "onnx".
            FileError: The suffix is unknown or does not match `format`, or the file cannot be written.
        """
        resource, number = model_resource(name), epoch_number(epoch)
        stem = f"{resource}-epoch-{number}" if number else resource
        target, format = resolve_target(to_path(path), stem, format)  # noqa: A001
        extra = b""
        if probabilities:
            if format != "onnx":
                raise InvalidArgumentError(f"probabilities: only an .onnx file can have them, not {format!r}")
            model, outputs_are_logits = await self._classifier(name)
            if not outputs_are_logits:
                raise InvalidArgumentError(f"probabilities: the outputs of model {name!r} are already probabilities")
            from gradwire._onnx import probabilities_part  # noqa: PLC0415  (seldom needed)

            extra = probabilities_part(network(model.spec).out_features, model.weights.dtype)
        return await download_file(
            self._transport, resource, target, format, number, on_progress=on_download_progress, extra=extra
        )

    async def delete(self, name: str) -> None:
        """Delete a model. The job that trained the model, and the job's events, are kept.

        Args:
            name: The model's name. If the model does not exist, this has no effect.
        """
        request = DeleteModelRequest(name=model_resource(name), allow_missing=True)
        await self._transport.call(self._transport.models.DeleteModel, request)


def softmax(logits: Array) -> Array:
    """Return the probabilities of the classes, of the same shape and dtype as the logits (rows, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _models_of(response: ListModelsResponse) -> Iterable[Model]:
    return response.models


class Models:
    """The trained models on a server, available as `client.models`."""

    def __init__(self, models: AsyncModels, portal: Portal) -> None:
        self._async = models
        self._portal = portal

    get = blocking(AsyncModels.get)
    list = blocking(AsyncModels.list)
    load = blocking(AsyncModels.load)
    predict = blocking(AsyncModels.predict)
    confusion_matrix = blocking(AsyncModels.confusion_matrix)
    classification_report = blocking(AsyncModels.classification_report)
    card = blocking(AsyncModels.card)
    download = blocking(AsyncModels.download)
    delete = blocking(AsyncModels.delete)
