"""A job on a server: watch it, wait for it, control it. AsyncJob implements it; Job is the blocking form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gradwire._blocking import Portal, Stream, blocking
from gradwire._exceptions import DeadlineExceededError, FailedPreconditionError, JobCancelledError, JobFailedError
from gradwire._history import History
from gradwire._info import ENDED, JobEvent, JobInfo, Plan, job_event, job_info, state_of
from gradwire._model_files import fetch_model
from gradwire._transport import Transport
from gradwire._types import JobState
from gradwire._watch import first_sequence_before, watch
from gradwire_engine.module import Module
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.spec.rebuild import build
from gradwire_engine.spec.resolve import network
from gradwire_engine.training import Epoch
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    PauseJobRequest,
    ResumeJobRequest,
)
from gradwire_proto.v1.training_service_pb2 import Job as JobMessage

if TYPE_CHECKING:
    from gradwire_engine.spec.tracing import TracedModel

T = TypeVar("T")


class AsyncJob:
    """A handle on a job, returned by `client.jobs.submit` and `client.jobs.get`.

    `info`, `status` and `plan` are as of the server's last response; `refresh` asks again.

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

    @property
    def name(self) -> str:
        """The job's name, for example "digits"."""
        return self._message.name.removeprefix("jobs/")

    @property
    def info(self) -> JobInfo:
        """The job as of the server's last response."""
        return job_info(self._message)

    @property
    def status(self) -> JobState:
        """The state as of the server's last response, for example "RUNNING"."""
        return state_of(self._message.state)

    @property
    def plan(self) -> Plan | None:
        """How and where the job runs, as of the server's last response; None before it starts."""
        return self.info.plan

    async def refresh(self) -> JobInfo:
        """Ask the server for the job.

        Returns:
            The new `info`.

        Raises:
            NotFoundError: The job was deleted.
        """
        request = GetJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.GetJob, request)
        return self.info

    async def cancel(self) -> JobInfo:
        """Cancel the job. It keeps every reported epoch. A job that has ended stays as it is.

        Returns:
            The new `info`.
        """
        request = CancelJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.CancelJob, request)
        return self.info

    async def pause(self) -> JobInfo:
        """Pause the job. It keeps every reported epoch. A paused job stays as it is.

        Returns:
            The new `info`.

        Raises:
            FailedPreconditionError: The job has ended.
        """
        request = PauseJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.PauseJob, request)
        return self.info

    async def resume(self) -> JobInfo:
        """Resume a paused job. It continues from its last checkpoint; the result is bit-identical to an unpaused run.

        Returns:
            The new `info`.

        Raises:
            FailedPreconditionError: The job has ended, or was never paused.
        """
        request = ResumeJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.ResumeJob, request)
        return self.info

    async def delete(self) -> None:
        """Delete the job and its events. Its model is kept. Deleting a job that does not exist does nothing.

        Raises:
            FailedPreconditionError: The job has not ended.
        """
        request = DeleteJobRequest(name=self._message.name, allow_missing=True)
        await self._transport.call(self._transport.training.DeleteJob, request)

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait until the job has ended, in whatever state.

        Args:
            timeout: The longest time to wait, in seconds; None for no limit.

        Returns:
            The new `info`.

        Raises:
            DeadlineExceededError: The job has not ended after `timeout` seconds. It continues.
        """
        return await self._within(timeout, self._wait())

    async def result(self, timeout: float | None = None) -> History:
        """Wait until the job has succeeded, and put the trained weights into the submitted model.

        Args:
            timeout: The longest time to wait, in seconds; None for no limit.

        Returns:
            The job's history.

        Raises:
            JobFailedError: The job failed. Its `history` ends at that point.
            JobCancelledError: The job was cancelled. Its `history` ends at that point.
            DeadlineExceededError: The job has not ended after `timeout` seconds. It continues.
        """
        return await self._within(timeout, self._result())

    async def model(self) -> Module:
        """Return the trained model as a Module rebuilt from its spec.

        Raises:
            FailedPreconditionError: The job has not succeeded.
        """
        info = self.info if self.status in ENDED else await self.refresh()
        if info.model is None:
            raise FailedPreconditionError(
                f"job {self.name!r} has no model, because it is {info.state}. Only a job that has succeeded has one."
            )
        message, weights = await fetch_model(self._transport, self._message.model)
        return build(message.spec, weights)

    async def epochs(self, after: int = 0) -> AsyncIterator[Epoch]:
        """Yield the epochs, first the finished ones and then new ones as they happen, until the job ends.

        Args:
            after: Skip the epochs up to this one.
        """
        async for batch in self._epoch_batches(after):
            for epoch in batch:
                yield epoch

    async def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield everything that happens to the job, first stored events and then new ones, until the job ends.

        Args:
            after: Skip the events up to this sequence number.

        Raises:
            OutOfRangeError: The job has no event with this number.
        """
        async for batch in self._event_batches(after):
            for event in batch:
                yield event

    async def _event_batches(self, after: int = 0) -> AsyncGenerator[list[JobEvent], None]:
        async for batch in watch(self._transport, self._message.name, after):
            yield [job_event(event) for event in batch]

    async def _epoch_batches(self, after: int = 0) -> AsyncGenerator[list[Epoch], None]:
        start = first_sequence_before(after, self._message)
        async for batch in watch(self._transport, self._message.name, start):
            yield [epoch_of(event.epoch) for event in batch if event.epoch.epoch > after]

    async def _wait(self) -> JobInfo:
        if self.status not in ENDED:
            async for _ in watch(self._transport, self._message.name, self._message.last_sequence):
                pass
        return await self.refresh()

    async def _result(self) -> History:
        return await self._finish([epoch async for epoch in self.epochs()])

    async def _finish(self, epochs: list[Epoch]) -> History:
        """Return the history of a job that ended after these epochs, or raise an error if it did not succeed."""
        info = await self.refresh()
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
        if self._traced is not None:
            model, weights = await fetch_model(self._transport, self._message.model)
            self._traced.load_weights(np.array(weights), network(model.spec))
        return history

    async def _within(self, timeout: float | None, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(timeout) as scope:
                return await coroutine
        except TimeoutError:
            if not scope.expired():
                raise
        raise DeadlineExceededError(f"job {self.name!r} has not ended after {timeout:g} s. It continues.")


class Job:
    """A handle on a job, returned by `client.jobs.submit` and `client.jobs.get`.

    `info`, `status` and `plan` are as of the server's last response; `refresh` asks again.

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

    @property
    def name(self) -> str:
        """The job's name, for example "digits"."""
        return self._async.name

    @property
    def info(self) -> JobInfo:
        """The job as of the server's last response."""
        return self._async.info

    @property
    def status(self) -> JobState:
        """The state as of the server's last response, for example "RUNNING"."""
        return self._async.status

    @property
    def plan(self) -> Plan | None:
        """How and where the job runs, as of the server's last response; None before it starts."""
        return self._async.plan

    def epochs(self, after: int = 0) -> Stream[Epoch]:
        """Yield the epochs, first the finished ones and then new ones as they happen, until the job ends.

        Args:
            after: Skip the epochs up to this one.

        Returns:
            An iterator for `for` and for `async for`.
        """
        return Stream(self._async._epoch_batches(after), self._portal)

    def events(self, after: int = 0) -> Stream[JobEvent]:
        """Yield everything that happens to the job, first stored events and then new ones, until the job ends.

        Args:
            after: Skip the events up to this sequence number.

        Returns:
            An iterator for `for` and for `async for`.

        Raises:
            OutOfRangeError: The job has no event with this number.
        """
        return Stream(self._async._event_batches(after), self._portal)

    refresh = blocking(AsyncJob.refresh)
    cancel = blocking(AsyncJob.cancel)
    pause = blocking(AsyncJob.pause)
    resume = blocking(AsyncJob.resume)
    delete = blocking(AsyncJob.delete)
    wait = blocking(AsyncJob.wait)
    result = blocking(AsyncJob.result)
    model = blocking(AsyncJob.model)
    _finish = blocking(AsyncJob._finish)


def _summary(info: JobInfo) -> str:
    return f"({info.name!r}, {info.state}, epoch {info.epochs_done}/{info.epochs})"
