"""The client of a server. AsyncClient does it; Client is the same, blocking, on a thread of its own."""

import asyncio
import uuid
from pathlib import Path
from typing import Any, Self

import numpy as np

from gradwire._arrays import to_array
from gradwire._blocking import Blocking, Portal, blocking, blocking_as
from gradwire._exceptions import InvalidArgumentError
from gradwire._info import ModelInfo, model_info
from gradwire._job import AsyncJob, Job
from gradwire._job_request import make_submission
from gradwire._model_files import fetch_file, fetch_model
from gradwire._transport import Access, Transport
from gradwire._uploads import Progress, upload
from gradwire_engine.backend import Array
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import references
from gradwire_engine.spec.tensors import from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import DeleteModelRequest, GetModelRequest, ListModelsRequest, PredictRequest
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, DeleteJobRequest, GetJobRequest, ListJobsRequest
from gradwire_proto.v1.training_service_pb2 import Job as JobMessage

_PAGE_SIZE = 1000
# Rows of a prediction that go in one call together hold about this much.
_PREDICT_BYTES = 8 << 20


class AsyncClient:
    """A client of the server at `address` ("host:port", default GRADWIRE_ADDRESS).

    token: the server's, default GRADWIRE_TOKEN. tls: True, or a file of certificates to trust; default GRADWIRE_TLS.
    A token is not sent in the clear to another machine, unless insecure=True or GRADWIRE_INSECURE=1 says so.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        self._transport = Transport(address, Access(token, tls, insecure))

    @property
    def address(self) -> str:
        """The server's address."""
        return self._transport.address

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Jobs go on."""
        await self._transport.close()

    async def health(self) -> str:
        """Return how the server is: "SERVING" where it takes jobs."""
        return await self._transport.health()

    async def submit(
        self,
        model: Module,
        train: tuple[Any, Any],
        *,
        test: tuple[Any, Any] | None = None,
        loss: Loss,
        optimizer: SGD,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        dtype: Any = None,
        device: str = "auto",
        evaluate_every: int = 1,
        name: str = "",
        resume_from: Any = None,
        upload_progress: Progress | None = None,
    ) -> AsyncJob:
        """Queue a job and return a handle on it; its arguments are those of `gradwire._fit`.

        Data that the server does not have yet is uploaded first, with calls of upload_progress(sent, total) in bytes.
        """
        await self._transport.connect()
        submission = await asyncio.to_thread(
            make_submission,
            model,
            train,
            test=test,
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            dtype=dtype,
            device=device,
            evaluate_every=evaluate_every,
        )
        await upload(self._transport, list(references(submission.spec).values()), submission.tensors, upload_progress)
        request = CreateJobRequest(
            job=JobMessage(spec=submission.spec),
            job_id=name,
            request_id=f"sdk-{uuid.uuid4().hex}",
            resume_from=_source(resume_from),
        )
        message = await self._transport.call(self._transport.training.CreateJob, request)
        return AsyncJob(self._transport, message, submission.traced)

    async def job(self, name: str) -> AsyncJob:
        """Return a handle on the job of that name."""
        await self._transport.connect()
        request = GetJobRequest(name=_resource("jobs", name))
        return AsyncJob(self._transport, await self._transport.call(self._transport.training.GetJob, request))

    async def jobs(self, filter: str = "", limit: int | None = None) -> list[AsyncJob]:  # noqa: A002
        """Return jobs, newest first. filter is as in the protocol: 'state = RUNNING', 'name : "digits"'."""
        call = self._transport.training.ListJobs
        messages = await self._list(call, ListJobsRequest(filter=filter), "jobs", limit)
        return [AsyncJob(self._transport, message) for message in messages]

    async def models(self, filter: str = "", limit: int | None = None) -> list[ModelInfo]:  # noqa: A002
        """Return trained models, newest first. filter is as in the protocol: 'name : "digits"'."""
        call = self._transport.models.ListModels
        messages = await self._list(call, ListModelsRequest(filter=filter), "models", limit)
        return [model_info(message) for message in messages]

    async def model_info(self, name: str) -> ModelInfo:
        """Return what the server says of a model."""
        await self._transport.connect()
        request = GetModelRequest(name=_resource("models", name))
        return model_info(await self._transport.call(self._transport.models.GetModel, request))

    async def model(self, name: str) -> Module:
        """Return a trained model as a Module that is rebuilt from its spec."""
        await self._transport.connect()
        message, weights = await fetch_model(self._transport, _resource("models", name))
        return build(message.spec, weights)

    async def download(self, name: str, path: str | Path = ".", format: str = "safetensors") -> Path:  # noqa: A002
        """Write a trained model to a file, "safetensors" or "onnx"; return its path. A folder gets the usual name."""
        await self._transport.connect()
        file_name, data = await fetch_file(self._transport, _resource("models", name), format)
        target = Path(path, file_name) if Path(path).is_dir() else Path(path)
        await asyncio.to_thread(target.write_bytes, data)
        return target

    async def predict(self, name: str, X: Any) -> Array:
        """Run a trained model on the server. X has shape (rows, features); for a classifier logits come back."""
        await self._transport.connect()
        array = to_array(X, "inputs")
        if array.ndim != 2:
            raise InvalidArgumentError(f"inputs must have shape (rows, features), got {array.shape}")
        rows = max(1, _PREDICT_BYTES // (array.itemsize * array.shape[1]))
        outputs = []
        for start in range(0, len(array), rows):
            request = PredictRequest(name=_resource("models", name), inputs=to_tensor(array[start : start + rows]))
            response = await self._transport.call(self._transport.models.Predict, request)
            outputs.append(from_tensor(response.outputs))
        return np.concatenate(outputs)

    async def delete(self, name: str) -> None:
        """Delete a job that has ended, and its events; its model stays. A job that is not there is no error."""
        await self._transport.connect()
        request = DeleteJobRequest(name=_resource("jobs", name), allow_missing=True)
        await self._transport.call(self._transport.training.DeleteJob, request)

    async def delete_model(self, name: str) -> None:
        """Delete a trained model; its job and the job's events stay."""
        await self._transport.connect()
        request = DeleteModelRequest(name=_resource("models", name))
        await self._transport.call(self._transport.models.DeleteModel, request)

    async def _list(self, method: Any, request: Any, field: str, limit: int | None) -> list[Any]:
        await self._transport.connect()
        found: list[Any] = []
        while limit is None or len(found) < limit:
            request.page_size = _PAGE_SIZE if limit is None else min(_PAGE_SIZE, limit - len(found))
            response = await self._transport.call(method, request)
            found.extend(getattr(response, field))
            request.page_token = response.next_page_token
            if not response.next_page_token:
                break
        return found


class Client(Blocking[AsyncClient]):
    """A client of the server at `address`, as AsyncClient, whose methods wait."""

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | Path | None = None,
        insecure: bool | None = None,
    ) -> None:
        super().__init__(AsyncClient(address, token=token, tls=tls, insecure=insecure), Portal())

    @property
    def address(self) -> str:
        """The server's address."""
        return self._async.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Jobs go on."""
        if not self._portal.closed:
            self._portal.call(self._async.close())
            self._portal.close()

    health = blocking(AsyncClient.health)
    submit = blocking_as(AsyncClient.submit, Job)
    job = blocking_as(AsyncClient.job, Job)
    jobs = blocking_as(AsyncClient.jobs, lambda jobs, portal: [Job(job, portal) for job in jobs])
    models = blocking(AsyncClient.models)
    model = blocking(AsyncClient.model)
    model_info = blocking(AsyncClient.model_info)
    download = blocking(AsyncClient.download)
    predict = blocking(AsyncClient.predict)
    delete = blocking(AsyncClient.delete)
    delete_model = blocking(AsyncClient.delete_model)


def _source(resume_from: Any) -> str:
    """Return the resource that a job goes on from: a job or its name, or a model's ModelInfo."""
    if resume_from is None:
        return ""
    if isinstance(resume_from, ModelInfo):
        return _resource("models", resume_from.name)
    name = resume_from if isinstance(resume_from, str) else resume_from.name
    return name if name.startswith("models/") else _resource("jobs", name)


def _resource(collection: str, name: str) -> str:
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"
