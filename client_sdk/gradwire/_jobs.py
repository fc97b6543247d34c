"""client.jobs, which submits, finds and deletes jobs. AsyncJobs is the implementation. Jobs is the blocking form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from gradwire._argument_names import invalid_argument
from gradwire._blocking import Portal, blocking, blocking_as
from gradwire._exceptions import FailedPreconditionError, InvalidArgumentError
from gradwire._info import JobInfo, ModelInfo
from gradwire._job import AsyncJob, Job
from gradwire._names import epoch_number, job_resource, model_resource
from gradwire._options import TrainingOptions
from gradwire._paging import collect
from gradwire._stopping import EarlyStopping
from gradwire._transport import Transport
from gradwire._types import Dataset, Device, DType, TransferProgress
from gradwire._uploads import upload
from gradwire_engine.backend import Array
from gradwire_engine.losses import Loss
from gradwire_engine.module import Module
from gradwire_engine.optim import SGD
from gradwire_engine.spec.resolve import references
from gradwire_proto.v1.training_service_pb2 import (
    CreateJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    ListJobsRequest,
    ListJobsResponse,
)
from gradwire_proto.v1.training_service_pb2 import Job as JobMessage

J = TypeVar("J", AsyncJob, Job)
# The reasons for which tensors must be uploaded again.
_TENSOR_LOST = ("TENSOR_MISSING", "TENSOR_DAMAGED")
_MAX_REMEMBERED_TENSORS = 10_000
# Inside the classes, `list` refers to the method.
AsyncJobList: TypeAlias = list[AsyncJob]


class JobTable(list[J]):
    """A list of jobs, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        from gradwire._notebook import jobs_html  # noqa: PLC0415  (only for notebooks)

        return jobs_html([job.info for job in self])


class AsyncJobs:
    """The jobs on a server, available as `client.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # The tensors of earlier jobs, which the server probably still has.
        self._sent: set[str] = set()

    async def submit(
        self,
        model: Module,
        train: Dataset,
        *,
        loss: Loss,
        optimizer: SGD,
        test: Dataset | None = None,
        validation_split: float | None = None,
        epochs: int = 10,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int | None = 0,
        dtype: DType | None = None,
        device: Device = "auto",
        evaluate_every: int = 1,
        classes: Sequence[str] | None = None,
        early_stopping: EarlyStopping | None = None,
        max_seconds: float | None = None,
        keep: str = "last",
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        resume_from: str | Job | AsyncJob | JobInfo | None = None,
        initial_model: str | ModelInfo | None = None,
        start_epoch: int | None = None,
        on_upload_progress: TransferProgress | None = None,
    ) -> AsyncJob:
        """Upload data that the server does not have, and submit a job.

        Args:
            model: A stack of Linear and ReLU layers. The job starts from its weights. The weights of deferred layers
                are drawn with `seed`. `job.result()` stores the trained weights in the model.
            train: A pair (inputs, targets). Inputs have shape (rows, features). Targets are class indices (rows,),
                one-hot rows or regression targets (rows, outputs), numbers (rows,) for a model with one output, or
                class names (rows,) as text.
            loss: MSE() or CrossEntropy().
            optimizer: An SGD optimizer of the model.
            test: A pair like `train`, used for evaluation after epochs but not for training.
            validation_split: Use this fraction of the rows as the test set: the last rows before shuffling.
            epochs: The number of passes over the training set. With resume_from, this includes the epochs of that job.
            batch_size: The number of rows per step.
            shuffle: Whether to shuffle the rows before every epoch.
            seed: The seed for the row order and the weights of deferred layers. None draws a random seed.
            dtype: "float32" or "float64". Default: the dtype of the model's weights.
            device: "auto", "cpu" or "gpu".
            evaluate_every: Evaluate after every n-th epoch and after the last epoch.
            classes: The names of the classes, in the order of the outputs; see `fit`.
            early_stopping: Ends the job when a metric no longer improves; see `EarlyStopping`.
            max_seconds: Ends the job after the epoch in which the training time reaches this limit, in seconds; see
                `fit`.
            keep: The epochs whose weights the server keeps until the job is deleted: "last", "best" or "every:N"; see
                `fit`.
            name: The job's name: 1 to 63 characters from a-z, 0-9 and "-". By default, the server chooses a name.
            labels: Key-value pairs for finding the job, for example {"team": "vision"}.
            resume_from: A job that has ended, or its name. The new job continues after its last epoch, or after its
                last checkpoint if it failed or was cancelled. The weights of `model` are ignored.
            initial_model: A trained model on the server, or its name. The job starts at epoch 1 from its weights. The
                weights of `model` are ignored.
            start_epoch: Start from the weights after this epoch of resume_from or initial_model. It must be one of the
                `kept_epochs` of that job. With start_epoch, the job in resume_from can still be running.
            on_upload_progress: A function that is called with (sent_bytes, total_bytes) after each uploaded chunk.

        Returns:
            A handle for the job.

        Raises:
            InvalidArgumentError: An argument is invalid.
            TraceError: forward() does something that cannot be expressed as a stack of Linear and ReLU layers.
            AlreadyExistsError: Another job has this name.
            NotFoundError: The job or model to start from does not exist, or the weights of start_epoch are not kept.
            FailedPreconditionError: The job or model to start from is unsuitable, or the cluster has no GPU.
            UnavailableError: No server answers.
        """
        options = TrainingOptions(
            loss=loss,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            dtype=dtype,
            device=device,
            evaluate_every=evaluate_every,
            validation_split=validation_split,
            classes=classes,
            early_stopping=early_stopping,
            max_seconds=max_seconds,
            keep=keep,
        )
        return await self._submit(
            model,
            train,
            test,
            options,
            name=name,
            labels=labels,
            resume_from=resume_from,
            initial_model=initial_model,
            start_epoch=start_epoch,
            on_upload_progress=on_upload_progress,
        )

    async def _submit(
        self,
        model: Module,
        train: Dataset,
        test: Dataset | None,
        options: TrainingOptions,
        *,
        name: str | None,
        labels: Mapping[str, str] | None,
        resume_from: str | Job | AsyncJob | JobInfo | None,
        initial_model: str | ModelInfo | None,
        start_epoch: int | None,
        on_upload_progress: TransferProgress | None,
    ) -> AsyncJob:
        import secrets  # noqa: PLC0415  (slow to import)

        from gradwire._job_request import make_job_request  # noqa: PLC0415

        message = JobMessage(labels=_checked_labels(labels))
        _start_from(message, resume_from, initial_model, start_epoch)
        if name is not None and not isinstance(name, str):
            raise invalid_argument("name", f"must be a string, got {name!r}", "")
        prepared = await asyncio.to_thread(make_job_request, model, train, test, options)
        message.spec.CopyFrom(prepared.spec)
        request = CreateJobRequest(job=message, job_id=name or "", request_id=f"sdk-{secrets.token_hex(16)}")
        created = await self._create(request, prepared.tensors, on_upload_progress)
        return AsyncJob(self._transport, created, prepared.traced)

    async def _create(
        self, request: CreateJobRequest, tensors: Mapping[str, Array], on_upload_progress: TransferProgress | None
    ) -> JobMessage:
        """Create a job. Before that, upload the tensors that the server does not have."""
        used = list(references(request.job.spec).values())
        method = self._transport.training.CreateJob
        if self._sent.issuperset(tensors):
            try:
                return await self._transport.call(method, request)
            except FailedPreconditionError as error:
                if error.reason not in _TENSOR_LOST:
                    raise
        await upload(self._transport, used, tensors, on_upload_progress)
        created = await self._transport.call(method, request)
        if len(self._sent) > _MAX_REMEMBERED_TENSORS:
            self._sent.clear()
        self._sent.update(tensors)
        return created

    async def get(self, name: str) -> AsyncJob:
        """Return a handle for a job.

        Args:
            name: The job's name, for example "digits".

        Raises:
            NotFoundError: No job has this name.
        """
        request = GetJobRequest(name=job_resource(name))
        return AsyncJob(self._transport, await self._transport.call(self._transport.training.GetJob, request))

    async def list(self, filter: str | None = None, limit: int | None = None) -> AsyncJobList:  # noqa: A002
        """Return jobs. The newest jobs come first.

        Args:
            filter: Conditions joined by AND, for example 'state = RUNNING', 'name : "digits"' (contains),
                'labels.team = "vision"' or 'labels : team' (has the label). None returns all jobs.
            limit: The maximum number of jobs, or None for no limit.

        Raises:
            InvalidArgumentError: The filter is invalid.
        """
        method = self._transport.training.ListJobs
        messages = await collect(self._transport, method, ListJobsRequest(filter=filter or ""), _jobs_of, limit)
        return JobTable(AsyncJob(self._transport, message) for message in messages)

    async def delete(self, name: str) -> None:
        """Delete a job that has ended. Its events are deleted too, but its model is kept.

        Args:
            name: The job's name. If the job does not exist, this has no effect.

        Raises:
            FailedPreconditionError: The job has not ended.
        """
        request = DeleteJobRequest(name=job_resource(name), allow_missing=True)
        await self._transport.call(self._transport.training.DeleteJob, request)


def _jobs_of(response: ListJobsResponse) -> Iterable[JobMessage]:
    return response.jobs


def _blocking_jobs(jobs: list[AsyncJob], portal: Portal) -> list[Job]:
    return JobTable(Job(job, portal) for job in jobs)


class Jobs:
    """The jobs on a server, available as `client.jobs`."""

    def __init__(self, jobs: AsyncJobs, portal: Portal) -> None:
        self._async = jobs
        self._portal = portal

    submit = blocking_as(AsyncJobs.submit, Job)
    _submit = blocking_as(AsyncJobs._submit, Job)
    get = blocking_as(AsyncJobs.get, Job)
    list = blocking_as(AsyncJobs.list, _blocking_jobs)
    delete = blocking(AsyncJobs.delete)


def _checked_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    if labels is not None and not isinstance(labels, Mapping):
        description = f'must be a dict of strings, for example {{"team": "vision"}}, got {labels!r}'
        raise invalid_argument("labels", description, "job.")
    labels = dict(labels or {})
    for key, value in labels.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise invalid_argument("labels", f"must have strings as keys and values, got {key!r}: {value!r}", "job.")
    return labels


def _start_from(
    message: JobMessage,
    resume_from: str | Job | AsyncJob | JobInfo | None,
    initial_model: str | ModelInfo | None,
    start_epoch: int | None,
) -> None:
    """Set the job or model from which a job starts, and the epoch."""
    if start_epoch is not None and resume_from is None and initial_model is None:
        raise InvalidArgumentError(
            "start_epoch: is an epoch of a job or a model. Pass resume_from or initial_model too."
        )
    message.start_epoch = epoch_number(start_epoch, "start_epoch")
    if resume_from is not None and initial_model is not None:
        raise InvalidArgumentError(
            "resume_from and initial_model cannot be used together. resume_from continues a job; initial_model starts "
            "at epoch 1 from the weights of a model."
        )
    if resume_from is not None:
        name = resume_from if isinstance(resume_from, str) else getattr(resume_from, "name", None)
        if not isinstance(name, str) or isinstance(resume_from, ModelInfo) or name.startswith("models/"):
            raise invalid_argument(
                "continue_job",
                f"must be a job or the name of one, got {resume_from!r}. To start from a model, use initial_model=...",
                "job.",
            )
        message.continue_job = job_resource(name)
    if initial_model is not None:
        name = initial_model.name if isinstance(initial_model, ModelInfo) else initial_model
        if not isinstance(name, str) or name.startswith("jobs/"):
            raise invalid_argument(
                "initial_model",
                f"must be the name of a model, got {initial_model!r}. To continue a job, use resume_from=...",
                "job.",
            )
        message.initial_model = model_resource(name)
