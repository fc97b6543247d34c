"""A job on a server: watched, waited for, cancelled. AsyncJob does it; Job is the same, blocking."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np

from gradwire._blocking import Blocking, Stream, blocking
from gradwire._exceptions import JobCancelledError, JobFailedError, UnavailableError
from gradwire._history import History
from gradwire._info import ENDED, JobEvent, JobInfo, Plan, job_event, job_info
from gradwire._model_files import fetch_model
from gradwire._transport import Transport
from gradwire_engine.spec.messages import epoch_of
from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tracing import TracedModel
from gradwire_engine.training import Epoch
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    Event,
    GetJobRequest,
    JobState,
    PauseJobRequest,
    ResumeJobRequest,
    WatchJobRequest,
)
from gradwire_proto.v1.training_service_pb2 import Job as JobMessage

# A watch that breaks off is taken up again, after growing waits, until the server has been away for this long.
_RECONNECT_SECONDS = 60.0
# A watch that held for this long had found the server.
_CONNECTED_SECONDS = 5.0
_MOST_WAIT_SECONDS = 2.0


class AsyncJob:
    """A handle on a job. What it knows without asking is `info`, as of the last answer."""

    def __init__(self, transport: Transport, message: JobMessage, traced: TracedModel | None = None) -> None:
        self._transport = transport
        self._message = message
        self._traced = traced

    @property
    def name(self) -> str:
        """The job's name, "digits"."""
        return self.info.name

    @property
    def info(self) -> JobInfo:
        """The job as of the last answer of the server; `refresh` asks anew."""
        return job_info(self._message)

    @property
    def plan(self) -> Plan | None:
        """How and where the job runs, as of the last answer; None before it has started."""
        return self.info.plan

    async def refresh(self) -> JobInfo:
        """Ask the server how the job stands."""
        request = GetJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.GetJob, request)
        return self.info

    async def cancel(self) -> JobInfo:
        """End the job if it has not ended; epochs that were reported stay."""
        request = CancelJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.CancelJob, request)
        return self.info

    async def pause(self) -> JobInfo:
        """Set the job aside; epochs that were reported stay. A job that is paused already stays as it is."""
        request = PauseJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.PauseJob, request)
        return self.info

    async def resume(self) -> JobInfo:
        """Let a paused job go on, from its last checkpoint, to the same bits as without the pause."""
        request = ResumeJobRequest(name=self._message.name)
        self._message = await self._transport.call(self._transport.training.ResumeJob, request)
        return self.info

    async def delete(self) -> None:
        """Delete the job, which must have ended, and its events; the model that it has made stays."""
        request = DeleteJobRequest(name=self._message.name, allow_missing=True)
        await self._transport.call(self._transport.training.DeleteJob, request)

    async def events(self, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield everything that has happened and happens to the job, after a sequence number, until it ends."""
        async for batch in self.event_batches(after):
            for event in batch:
                yield event

    async def epochs(self, after: int = 0) -> AsyncIterator[Epoch]:
        """Yield the epochs after epoch `after`, those that are over and then the others as they happen."""
        async for batch in self.epoch_batches(after):
            for epoch in batch:
                yield epoch

    async def event_batches(self, after: int = 0) -> AsyncGenerator[list[JobEvent], None]:
        """Yield the same as `events`, as many at a time as have come together."""
        async for batch in self._watch(after):
            yield [job_event(event) for event in batch]

    async def epoch_batches(self, after: int = 0) -> AsyncGenerator[list[Epoch], None]:
        """Yield the same as `epochs`, as many at a time as have come together."""
        async for batch in self._watch(0):
            yield [epoch_of(event.epoch) for event in batch if event.epoch.epoch > after]

    async def result(self) -> History:
        """Wait for the end. The weights land in the model that was submitted, and the history is returned.

        Raises JobFailedError or JobCancelledError if that is how it ended.
        """
        history = History(job=self.name, epochs=[epoch async for epoch in self.epochs()])
        info = await self.refresh()
        history.plan = info.plan
        if info.state == "FAILED":
            failure = JobFailedError(f"job {self.name} failed: {info.error}")
            failure.reason = self._message.error.reason
            raise failure
        if info.state == "CANCELLED":
            raise JobCancelledError(
                f"job {self.name} was cancelled after {len(history.epochs)} of {info.epochs} epochs"
            )
        if self._traced is not None:
            model, weights = await fetch_model(self._transport, self._message.model)
            self._traced.load_weights(np.array(weights), network(model.spec))
        return history

    async def _watch(self, after: int) -> AsyncIterator[Sequence[Event]]:
        """Follow the log from a sequence number to its end; a connection that breaks is made anew where it was."""
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        wait = 0.05
        while True:
            began = loop.time()
            try:
                request = WatchJobRequest(name=self._message.name, after_sequence=after)
                async for response in self._transport.receive(self._transport.training.WatchJob, request):
                    away_since, wait = None, 0.05
                    after = response.events[-1].sequence
                    yield response.events
                    if response.events[-1].state_change.state in _ENDED_STATES:
                        return
                return
            except UnavailableError:
                now = loop.time()
                if away_since is None or now - began > _CONNECTED_SECONDS:
                    away_since, wait = now, 0.05
                if now - away_since > _RECONNECT_SECONDS:
                    raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MOST_WAIT_SECONDS)


_ENDED_STATES = {JobState.Value(f"JOB_STATE_{state}") for state in ENDED}


class Job(Blocking[AsyncJob]):
    """A handle on a job, as AsyncJob, whose methods wait. Streams are for `for` and for `async for`."""

    @property
    def name(self) -> str:
        """The job's name, "digits"."""
        return self._async.name

    @property
    def info(self) -> JobInfo:
        """The job as of the last answer of the server; `refresh` asks anew."""
        return self._async.info

    @property
    def plan(self) -> Plan | None:
        """How and where the job runs, as of the last answer; None before it has started."""
        return self._async.plan

    def epochs(self, after: int = 0) -> Stream[Epoch]:
        """Yield the epochs after epoch `after`, those that are over and then the others as they happen."""
        return Stream(self._async.epoch_batches(after), self._portal)

    def events(self, after: int = 0) -> Stream[JobEvent]:
        """Yield everything that has happened and happens to the job, after a sequence number, until it ends."""
        return Stream(self._async.event_batches(after), self._portal)

    refresh = blocking(AsyncJob.refresh)
    cancel = blocking(AsyncJob.cancel)
    pause = blocking(AsyncJob.pause)
    resume = blocking(AsyncJob.resume)
    delete = blocking(AsyncJob.delete)
    result = blocking(AsyncJob.result)
