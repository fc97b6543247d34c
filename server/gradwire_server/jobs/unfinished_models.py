"""The models of jobs that failed or were cancelled, with the weights of the last checkpoint."""

from dataclasses import dataclass

from gradwire_proto.v1.model_service_pb2 import Model, ModelFormat
from gradwire_proto.v1.training_service_pb2 import JobState
from gradwire_server.errors import JobNotEndedError, NoCheckpointError
from gradwire_server.jobs.events import has_ended, state_name
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.models.export import ModelFile
from gradwire_server.models.registry import ModelRegistry, check_format
from gradwire_server.principal import Principal
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.threads import in_thread


@dataclass(frozen=True)
class UnfinishedModels:
    """Exports the checkpoints of jobs that ended without a model. A checkpoint is kept until its job is deleted."""

    jobs: JobQueries
    models: ModelRegistry
    checkpoints: CheckpointStore

    async def export(self, principal: Principal, job_name: str, format_: ModelFormat) -> tuple[ModelFile, int]:
        """Return the model of a job as a file, and the epoch that its weights come from.

        Raises:
            JobNotFoundError: The job does not exist.
            InvalidFieldsError: The format is unknown.
            JobNotEndedError: The job has not ended, so its checkpoints still change.
            NoCheckpointError: The job succeeded or ended before its first checkpoint, or its checkpoints are damaged.
        """
        check_format(format_)
        record = await self.jobs.get(principal, job_name)
        job, state = record.job, state_name(record.job)
        if not has_ended(job):
            raise JobNotEndedError(job_name, state, "Wait until it ends, or cancel it first")
        if job.state == JobState.JOB_STATE_SUCCEEDED:
            raise NoCheckpointError(job_name, state, f"has succeeded. Its weights are those of {job.model!r}")
        # The export reads the weights from a blob, so copy the checkpoint to a blob.
        found = await in_thread(self.checkpoints.newest_as_tensor, record.job_key, job.spec, job.last_epoch.epoch)
        if found is None:
            text = f"ended ({state}) before its first checkpoint, or its checkpoints are damaged. It has no weights"
            raise NoCheckpointError(job_name, state, text)
        weights, epoch = found
        model = Model(name=f"models/{record.job_id}", job=job_name, spec=job.spec.model, weights=weights)
        return await self.models.export_model(model, format_), epoch
