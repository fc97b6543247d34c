"""TrainingService."""

import asyncio
import re
from collections.abc import AsyncIterator

import grpc
from grpc.aio import ServicerContext

from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    DeleteJobResponse,
    GetJobRequest,
    Job,
    JobState,
    ListJobsRequest,
    ListJobsResponse,
    PauseJobRequest,
    ResumeJobRequest,
    WatchJobRequest,
    WatchJobResponse,
)
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceServicer
from gradwire_server.api.list_requests import parse_page
from gradwire_server.errors import ServiceError, invalid_argument, unavailable
from gradwire_server.jobs.admission import Validator
from gradwire_server.jobs.commands import Jobs
from gradwire_server.jobs.notifier import Changes
from gradwire_server.jobs.warm_start import Resumption
from gradwire_server.storage.checkpoint_store import Checkpoints
from gradwire_server.store.queries import TERMINAL

_JOB_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_MOST_REQUEST_ID = 128
# Events in one message of a watch; a watcher that reads slowly is sent no more than it takes.
_EVENTS_PER_MESSAGE = 1000
_STATES = {name.removeprefix("JOB_STATE_"): number for name, number in JobState.items() if number}


class TrainingService(TrainingServiceServicer):
    """Takes jobs in and tells what becomes of them."""

    def __init__(
        self,
        jobs: Jobs,
        validator: Validator,
        resumption: Resumption,
        checkpoints: Checkpoints,
        changes: Changes,
    ) -> None:
        self._jobs = jobs
        self._resumption = resumption
        self._checkpoints = checkpoints
        self._validator = validator
        self._changes = changes

    async def CreateJob(self, request: CreateJobRequest, context: ServicerContext[object, object]) -> Job:
        if request.job_id and not _JOB_ID.fullmatch(request.job_id):
            description = "must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter and not ending in '-'"
            raise invalid_argument([("job_id", f"{description}, got {request.job_id[:80]!r}")])
        if len(request.request_id) > _MOST_REQUEST_ID:
            raise invalid_argument([("request_id", f"must be at most {_MOST_REQUEST_ID} characters")])
        earlier = await self._jobs.find_request(request.request_id) if request.request_id else None
        if earlier is not None:
            return earlier
        spec = request.job.spec
        if request.resume_from:
            spec = await self._resumption.spec_from(request.resume_from, spec)
        valid = await self._validator.check(spec)
        return await self._jobs.create(valid.spec, valid.classification, request.job_id, request.request_id)

    async def GetJob(self, request: GetJobRequest, context: ServicerContext[object, object]) -> Job:
        return (await self._jobs.find(request.name)).message

    async def ListJobs(self, request: ListJobsRequest, context: ServicerContext[object, object]) -> ListJobsResponse:
        jobs, token = await self._jobs.list(parse_page(request, _STATES))
        return ListJobsResponse(jobs=jobs, next_page_token=token)

    async def WatchJob(
        self, request: WatchJobRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[WatchJobResponse]:
        job = await self._jobs.check_sequence(request.name, request.after_sequence)
        seen = request.after_sequence
        if job.ended and seen == job.message.last_sequence:
            return
        while True:
            signal = self._changes.signal(job.id)
            events = await self._jobs.events_after(job.id, seen, _EVENTS_PER_MESSAGE)
            if self._changes.closed:
                raise unavailable("SHUTTING_DOWN", "the server is going down", retry_seconds=1)
            if not events:
                await signal.wait()
                continue
            yield WatchJobResponse(events=events)
            seen = events[-1].sequence
            if events[-1].state_change.state in TERMINAL:
                return

    async def PauseJob(self, request: PauseJobRequest, context: ServicerContext[object, object]) -> Job:
        return (await self._jobs.pause(request.name)).message

    async def ResumeJob(self, request: ResumeJobRequest, context: ServicerContext[object, object]) -> Job:
        return (await self._jobs.resume(request.name)).message

    async def DeleteJob(self, request: DeleteJobRequest, context: ServicerContext[object, object]) -> DeleteJobResponse:
        try:
            number = await self._jobs.delete(request.name)
        except ServiceError as error:
            if error.code is grpc.StatusCode.NOT_FOUND and request.allow_missing:
                return DeleteJobResponse()
            raise
        await asyncio.to_thread(self._checkpoints.drop, number)
        return DeleteJobResponse()

    async def CancelJob(self, request: CancelJobRequest, context: ServicerContext[object, object]) -> Job:
        return (await self._jobs.cancel(request.name)).message
