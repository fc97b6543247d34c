"""TrainingService. Each method converts a request, makes one call, and converts the result."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from google.protobuf.empty_pb2 import Empty
from grpc.aio import ServicerContext

from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    DownloadCheckpointRequest,
    DownloadCheckpointResponse,
    GetJobRequest,
    Job,
    JobState,
    JobView,
    ListJobEventsRequest,
    ListJobEventsResponse,
    ListJobsRequest,
    ListJobsResponse,
    PauseJobRequest,
    ResumeJobRequest,
    SampleEpochsRequest,
    SampleEpochsResponse,
    StopJobRequest,
    WatchJobRequest,
    WatchJobResponse,
    WatchJobsRequest,
    WatchJobsResponse,
)
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceServicer
from gradwire_server.api.authentication import current_principal
from gradwire_server.api.downloads import check_offset, chunks_of, header_of
from gradwire_server.api.list_requests import parse_page
from gradwire_server.errors import JobNotFoundError, invalid_field
from gradwire_server.jobs.admission import Admission
from gradwire_server.jobs.commands import JobCommands
from gradwire_server.jobs.events import TERMINAL_STATES
from gradwire_server.jobs.live import LiveJobs
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.jobs.repeated_requests import check_repeated
from gradwire_server.jobs.samples import MIN_SAMPLE
from gradwire_server.jobs.unfinished_models import UnfinishedModels
from gradwire_server.limits import MAX_WATCHED_JOBS
from gradwire_server.resource_names import ID_RULE, id_in, is_valid_id
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.threads import in_thread

_MAX_REQUEST_ID_LENGTH = 128
_DEFAULT_SAMPLE, _MAX_SAMPLE = 500, 2000
_STATES = {name.removeprefix("JOB_STATE_"): number for name, number in JobState.items() if number}


@dataclass(frozen=True)
class TrainingService(TrainingServiceServicer):
    """Creates, watches and controls jobs."""

    commands: JobCommands
    queries: JobQueries
    live: LiveJobs
    admission: Admission
    checkpoints: CheckpointStore
    unfinished_models: UnfinishedModels

    async def CreateJob(self, request: CreateJobRequest, context: ServicerContext[object, object]) -> Job:
        principal = current_principal()
        if request.job_id and not is_valid_id(request.job_id):
            raise invalid_field("job_id", f"{ID_RULE}, got {request.job_id[:80]!r}")
        if len(request.request_id) > _MAX_REQUEST_ID_LENGTH or "\0" in request.request_id:
            raise invalid_field("request_id", f"must have at most {_MAX_REQUEST_ID_LENGTH} characters and no NUL")
        if request.request_id and not request.validate_only:
            earlier = await self.queries.find_by_request(principal, request.request_id)
            if earlier is not None:
                check_repeated(request, earlier)
                return earlier
        admitted = await self.admission.admit(principal, request.job)
        if request.validate_only:
            if request.job_id:
                await self.commands.check_free(principal, request.job_id)
            return admitted.job
        return await self.commands.create(principal, admitted, request)

    async def GetJob(self, request: GetJobRequest, context: ServicerContext[object, object]) -> Job:
        return (await self.queries.get(current_principal(), request.name)).job

    async def ListJobs(self, request: ListJobsRequest, context: ServicerContext[object, object]) -> ListJobsResponse:
        if request.view not in JobView.values():
            raise invalid_field("view", f"must be JOB_VIEW_BASIC or JOB_VIEW_FULL, got {request.view}")
        jobs, token = await self.queries.list(current_principal(), parse_page(request, _STATES))
        if request.view != JobView.JOB_VIEW_FULL:
            for job in jobs:
                job.ClearField("spec")
                job.ClearField("kept_epochs")
        return ListJobsResponse(jobs=jobs, next_page_token=token)

    async def WatchJob(
        self, request: WatchJobRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[WatchJobResponse]:
        principal = current_principal()
        watch = self.queries.watch(principal, request.name, request.after_sequence)
        async with aclosing(watch) as batches:
            async for events in batches:
                ends = events[-1].state_change.state in TERMINAL_STATES
                job = (await self.queries.get(principal, request.name)).job if ends else None
                yield WatchJobResponse(events=events, job=job)

    async def WatchJobs(
        self, request: WatchJobsRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[WatchJobsResponse]:
        if len(request.names) > MAX_WATCHED_JOBS:
            raise invalid_field("names", f"must have at most {MAX_WATCHED_JOBS} names, got {len(request.names)}")
        if not request.names and not request.include_new:
            raise invalid_field("names", "must name at least one job, unless include_new is set")
        for place, name in enumerate(request.names):
            if id_in("jobs", name) is None:
                raise invalid_field(f"names[{place}]", f'must be "jobs/{{job_id}}", got {name[:80]!r}')
        watch = self.live.watch(current_principal(), request.names, request.include_new)
        async with aclosing(watch) as responses:
            async for changes in responses:
                yield WatchJobsResponse(jobs=changes.jobs, deleted_jobs=changes.deleted)

    async def SampleEpochs(
        self, request: SampleEpochsRequest, context: ServicerContext[object, object]
    ) -> SampleEpochsResponse:
        for field in ("first_epoch", "last_epoch", "max_epochs"):
            if getattr(request, field) < 0:
                raise invalid_field(field, f"must be at least 0, got {getattr(request, field)}")
        most = min(max(request.max_epochs or _DEFAULT_SAMPLE, MIN_SAMPLE), _MAX_SAMPLE)
        events, complete = await self.queries.sample_epochs(
            current_principal(), request.name, request.first_epoch, request.last_epoch, most
        )
        return SampleEpochsResponse(epochs=[event.epoch for event in events], complete=complete)

    async def ListJobEvents(
        self, request: ListJobEventsRequest, context: ServicerContext[object, object]
    ) -> ListJobEventsResponse:
        return ListJobEventsResponse(events=await self.queries.changes_and_warnings(current_principal(), request.name))

    async def PauseJob(self, request: PauseJobRequest, context: ServicerContext[object, object]) -> Job:
        return await self.commands.pause(current_principal(), request.name)

    async def ResumeJob(self, request: ResumeJobRequest, context: ServicerContext[object, object]) -> Job:
        return await self.commands.resume(current_principal(), request.name)

    async def StopJob(self, request: StopJobRequest, context: ServicerContext[object, object]) -> Job:
        return await self.commands.stop(current_principal(), request.name)

    async def CancelJob(self, request: CancelJobRequest, context: ServicerContext[object, object]) -> Job:
        return await self.commands.cancel(current_principal(), request.name)

    async def DeleteJob(self, request: DeleteJobRequest, context: ServicerContext[object, object]) -> Empty:
        try:
            deleted = await self.commands.delete(current_principal(), request.name)
        except JobNotFoundError:
            if not request.allow_missing:
                raise
        else:
            await in_thread(self.checkpoints.delete_all, deleted.job_key)
        return Empty()

    async def DownloadCheckpoint(
        self, request: DownloadCheckpointRequest, context: ServicerContext[object, object]
    ) -> AsyncIterator[DownloadCheckpointResponse]:
        check_offset(request.offset)
        file, epoch = await self.unfinished_models.export(current_principal(), request.name, request.format)
        header = await header_of(file, request.offset, self.unfinished_models.models.digests)
        yield DownloadCheckpointResponse(header=header, epoch=epoch)
        async for chunk in chunks_of(file, request.offset):
            yield DownloadCheckpointResponse(chunk=chunk)
