"""A handle for a job on a server. AsyncJob is the implementation, and Job is the blocking form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gradwire._blocking import Portal, Stream, blocking
from gradwire._exceptions import (
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
)
from gradwire._history import History
from gradwire._info import ENDED, JobEvent, JobInfo, Plan, job_event, job_info, state_of
from gradwire._model_files import download_file, fetch_model, fetch_weights
from gradwire._names import epoch_number, model_resource
from gradwire._options import checked_whole
from gradwire._transport import Transport, checked_seconds
from gradwire._types import JobState, ModelFormat, TransferProgress
from gradwire._watch import first_sequence_before, watch
from gradwire_engine.module import Module
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.spec.rebuild import build
from gradwire_engine.training import Epoch
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
    StopJobRequest,
)
from gradwire_proto.v1.training_service_pb2 import Job as JobMessage

if TYPE_CHECKING:
    from gradwire_engine.spec.tracing import TracedModel

T = TypeVar("T")

_MAX_SEQUENCE = 2**63 - 1


class AsyncJob:
    """A handle for a job. `client.jobs.submit` and `client.jobs.get` return handles.

    `info`, `status` and `plan` describe the job as of the server's last response. Call `refresh` to update them.

    Example:
        job = await client.jobs.submit(model, (X, y), loss=CrossEntropy(), optimizer=SGD(model))
        async for epoch in job.epochs():
            print(epoch.epoch, epoch.train.loss)
        history = await job.result()
    """

    def __init__(self, transport: Transport, message: JobMessage, traced: TracedModel | None = None) -> None:
        self._transport = transport
        self._message = message
        self._traced = traced

    def __repr__(self) -> str:
        return f"AsyncJob{_summary(self.info)}"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()

    @property
    def name(self) -> str:
        """The job's name, for example "digits"."""
        return self._message.name.removeprefix("jobs/")

    @property
    def info(self) -> JobInfo:
        """The description of the job, as of the server's last response."""
        return job_info(self._message)

    @property
    def status(self) -> JobState:
        """The state of the job, as of the server's last response, for example "RUNNING"."""
        return state_of(self._message.state)

    @property
    def plan(self) -> Plan | None:
        """The plan and the machine of the job, as of the server's last response. None before the job runs."""
        return self.info.plan

    async def refresh(self) -> JobInfo:
        """Get the current description of the job from the server.

        Returns:
            The new `info`.

        Raises:
            NotFoundError: The job was deleted.
        """
        request = GetJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.GetJob, request)
        return self.info

    async def cancel(self) -> JobInfo:
        """Cancel the job. All reported epochs are kept. If the job has ended, this has no effect.

        Returns:
            The new `info`.
        """
        request = CancelJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.CancelJob, request)
        return self.info

    async def stop(self) -> JobInfo:
        """End the job after the epoch that it is training, and keep its model. `job.wait()` waits until it ends.

        The job succeeds with the stop_reason "REQUESTED". A job that was never trained ends after its first epoch. If
        the job has ended, this has no effect.

        Returns:
            The new `info`.
        """
        request = StopJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.StopJob, request)
        return self.info

    async def pause(self) -> JobInfo:
        """Pause the job. All reported epochs are kept. If the job is already paused, this has no effect.

        Returns:
            The new `info`.

        Raises:
            FailedPreconditionError: The job has ended.
        """
        request = PauseJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.PauseJob, request)
        return self.info

    async def resume(self) -> JobInfo:
        """Resume a paused job. It continues from its last checkpoint, with the same result as an uninterrupted job.

        Returns:
            The new `info`.

        Raises:
            FailedPreconditionError: The job has ended, or was never paused.
        """
        request = ResumeJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.ResumeJob, request)
        return self.info

    async def delete(self) -> None:
        """Delete the job and its events, but keep its model. If the job does not exist, this has no effect.

        Raises:
            FailedPreconditionError: The job has not ended.
        """
        request = DeleteJobRequest(name=self._message.name, allow_missing=True)
        await self._transport.call(self._transport.training.DeleteJob, request)

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait until the job has ended, whether it succeeded or not.

        Args:
            timeout: The maximum time to wait, in seconds, or None for no limit.

        Returns:
            The new `info`.

        Raises:
            DeadlineExceededError: The job has not ended after `timeout` seconds. The job continues to run.
        """
        return await self._within(timeout, self._wait())

    async def result(self, timeout: float | None = None) -> History:
        """Wait until the job has succeeded, and store the trained weights in the submitted model.

        Args:
            timeout: The maximum time to wait, in seconds, or None for no limit.

        Returns:
            The job's history.

        Raises:
            JobFailedError: The job failed. The error's `history` contains the epochs before the failure.
            JobCancelledError: The job was cancelled. The error's `history` contains the epochs before the cancellation.
            DeadlineExceededError: The job has not ended after `timeout` seconds. The job continues to run.
        """
        return await self._within(timeout, self._result())

    async def model(self, epoch: int | None = None) -> Module:
        """Return the trained model as a Module rebuilt from its spec.

        If the job failed or was cancelled, the model has the weights of its last checkpoint, which the server keeps
        until the job is deleted.

        Args:
            epoch: Return the model after this epoch, which must be one of `info.kept_epochs`. The job can still be
                running.

        Raises:
            FailedPreconditionError: The job has not ended, or it ended before its first checkpoint.
            NotFoundError: The weights of the epoch are not kept.
        """
        if epoch is not None:
            message, weights = await fetch_model(self._transport, model_resource(self.name), epoch_number(epoch))
            return build(message.spec, weights)
        info = await self._ended()
        if info.model is None:
            spec = self._message.spec.model
            return build(spec, await fetch_weights(self._transport, self._message.name, spec))
        message, weights = await fetch_model(self._transport, self._message.model)
        return build(message.spec, weights)

    async def download(
        self,
        path: str | Path = ".",
        format: ModelFormat | None = None,  # noqa: A002
        epoch: int | None = None,
        *,
        on_download_progress: TransferProgress | None = None,
    ) -> Path:
        """Download the trained model as a file, or the last checkpoint of a job that failed or was cancelled.

        Args:
            path: The file, or a folder, in which the file is named after the job.
            format: "safetensors", "npz" or "onnx". Default: derived from the file suffix, or "safetensors" for a
                folder.
            epoch: Download the model after this epoch, as for `model`.
            on_download_progress: A function that is called with (received_bytes, total_bytes) after each chunk.

        Returns:
            The path of the file.

        Raises:
            FailedPreconditionError: The job has not ended, or it ended before its first checkpoint.
            NotFoundError: The weights of the epoch are not kept.
            FileError: The suffix is unknown or does not match `format`, or the file cannot be written.
        """
        number = epoch_number(epoch)
        if number:
            name = model_resource(self.name)
        else:
            info = await self._ended()
            name = self._message.name if info.model is None else self._message.model
        return await download_file(self._transport, name, path, format, number, on_progress=on_download_progress)

    async def card(self) -> str:
        """Return a description of the trained model as Markdown: layers, settings, data, metrics and curve.

        Raises:
            FailedPreconditionError: The job has not succeeded.
        """
        from gradwire._model_card import fetch_card  # noqa: PLC0415  (seldom needed)

        info = self.info if self.info.model else await self.refresh()
        if info.model is None:
            raise FailedPreconditionError(f"job {self.name!r} has no model, because it is {info.state}")
        return await fetch_card(self._transport, self._message.model)

    async def epochs(self, after: int = 0) -> AsyncIterator[Epoch]:
        """Yield the finished epochs, and then new epochs as they are completed, until the job ends.

        Args:
            after: The number of the last epoch to skip.
        """
        async for batch in self._epoch_batches(after):
            for epoch in batch:
                yield epoch

    async def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield the stored events, and then new events as they are stored, until the job ends.

        Args:
            after: The sequence number of the last event to skip.

        Raises:
            OutOfRangeError: The job does not have an event with this sequence number.
        """
        async for batch in self._event_batches(after):
            for event in batch:
                yield event

    async def _event_batches(self, after: int = 0) -> AsyncGenerator[list[JobEvent], None]:
        after = checked_whole("after", after, 0, largest=_MAX_SEQUENCE)
        async for batch in watch(self._transport, self._message.name, after, self._on_end):
            yield [job_event(event) for event in batch]

    async def _epoch_batches(self, after: int = 0) -> AsyncGenerator[list[Epoch], None]:
        after = checked_whole("after", after, 0)
        start = first_sequence_before(after, self._message)
        async for batch in watch(self._transport, self._message.name, start, self._on_end):
            yield [epoch_of(event.epoch) for event in batch if event.epoch.epoch > after]

    async def _ended(self) -> JobInfo:
        """Return the info of a job that has ended. Raises FailedPreconditionError if it has not."""
        # A job without a model may still be running, and a job from a list has no spec.
        info = self.info if self.info.model else await self.refresh()
        if info.state not in ENDED:
            raise FailedPreconditionError(
                f"job {self.name!r} has no model yet, because it is {info.state}. Wait until it ends: job.wait()."
            )
        return info

    async def _wait(self) -> JobInfo:
        if self.status not in ENDED:
            async for _ in watch(self._transport, self._message.name, self._message.last_sequence, self._on_end):
                pass
        return await self._final()

    async def _result(self) -> History:
        return await self._finish([epoch async for epoch in self.epochs()])

    async def _finish(self, epochs: list[Epoch]) -> History:
        """Return the history of a successful job with these epochs. Raise an error if the job did not succeed."""
        info = await self._final()
        history = History(job=self.name, plan=info.plan, seed=self._message.spec.seed, epochs=epochs)
        if info.state == "FAILED":
            raise JobFailedError(
                f"job {self.name!r} failed: {info.error}", job=self.name, reason=info.error_reason, history=history
            )
        if info.state == "CANCELLED":
            raise JobCancelledError(
                f"job {self.name!r} was cancelled after {info.epochs_done} of {info.epochs} epochs",
                job=self.name,
                history=history,
            )
        history.stop_reason = info.stop_reason
        if self._traced is not None:
            spec = self._message.spec.model
            weights = await fetch_weights(self._transport, self._message.model, spec)
            self._traced.load(spec, np.array(weights))
            history.model_epoch = self._model_epoch()
        return history

    def _on_end(self, ended: JobMessage) -> None:
        self._message = ended

    async def _final(self) -> JobInfo:
        """Return the info of a job that has ended. Servers of earlier versions do not send it with the last event."""
        if self.status in ENDED and self._message.HasField("spec"):
            return self.info
        return await self.refresh()

    def _model_epoch(self) -> int:
        """Return the epoch whose weights the model has."""
        job = self._message
        best = job.spec.early_stopping.restore_best and job.HasField("best_epoch")
        return (job.best_epoch if best else job.last_epoch).epoch

    async def _within(self, timeout: float | None, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            checked_seconds(timeout, "timeout")
        except InvalidArgumentError:
            coroutine.close()
            raise
        try:
            async with asyncio.timeout(timeout) as scope:
                return await coroutine
        except TimeoutError:
            if not scope.expired():
                raise
        raise DeadlineExceededError(f"job {self.name!r} has not ended after {timeout:g} s. It continues.")


class Job:
    """A handle for a job. `client.jobs.submit` and `client.jobs.get` return handles.

    `info`, `status` and `plan` describe the job as of the server's last response. Call `refresh` to update them.

    Example:
        job = client.jobs.submit(model, (X, y), loss=CrossEntropy(), optimizer=SGD(model))
        for epoch in job.epochs():
            print(epoch.epoch, epoch.train.loss)
        history = job.result()
    """

    def __init__(self, job: AsyncJob, portal: Portal) -> None:
        self._async = job
        self._portal = portal

    def __repr__(self) -> str:
        return f"Job{_summary(self.info)}"

    def _repr_html_(self) -> str:
        return self._async._repr_html_()

    @property
    def name(self) -> str:
        """The job's name, for example "digits"."""
        return self._async.name

    @property
    def info(self) -> JobInfo:
        """The description of the job, as of the server's last response."""
        return self._async.info

    @property
    def status(self) -> JobState:
        """The state of the job, as of the server's last response, for example "RUNNING"."""
        return self._async.status

    @property
    def plan(self) -> Plan | None:
        """The plan and the machine of the job, as of the server's last response. None before the job runs."""
        return self._async.plan

    def epochs(self, after: int = 0) -> Stream[Epoch]:
        """Yield the finished epochs, and then new epochs as they are completed, until the job ends.

        Args:
            after: The number of the last epoch to skip, or 0.

        Returns:
            An iterator for use with `for` or `async for`.
        """
        return Stream(self._async._epoch_batches(after), self._portal)

    def events(self, after: int = 0) -> Stream[JobEvent]:
        """Yield the stored events, and then new events as they are stored, until the job ends.

        Args:
            after: The sequence number of the last event to skip.

        Returns:
            An iterator for use with `for` or `async for`.

        Raises:
            OutOfRangeError: The job does not have an event with this sequence number.
        """
        return Stream(self._async._event_batches(after), self._portal)

    refresh = blocking(AsyncJob.refresh)
    stop = blocking(AsyncJob.stop)
    cancel = blocking(AsyncJob.cancel)
    pause = blocking(AsyncJob.pause)
    resume = blocking(AsyncJob.resume)
    delete = blocking(AsyncJob.delete)
    wait = blocking(AsyncJob.wait)
    result = blocking(AsyncJob.result)
    model = blocking(AsyncJob.model)
    download = blocking(AsyncJob.download)
    card = blocking(AsyncJob.card)
    _finish = blocking(AsyncJob._finish)


def _summary(info: JobInfo) -> str:
    return f"({info.name!r}, {info.state}, epoch {info.epochs_done}/{info.epochs})"
