"""Warm starts, in which a new job starts from the weights of an earlier job or model."""

from dataclasses import dataclass

from gradwire_engine.spec.resolve import linear_layers, resolve
from gradwire_proto.v1.spec_pb2 import Initialization, JobSpec, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import CannotStartFromError, invalid_field
from gradwire_server.jobs.events import has_ended, model_epoch, state_name
from gradwire_server.jobs.queries import JobQueries
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.principal import Principal
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.threads import in_thread

_FLOATS = {DataType.DATA_TYPE_FLOAT32: "float32", DataType.DATA_TYPE_FLOAT64: "float64"}


@dataclass(frozen=True)
class _Start:
    """The start of a job: the request field, the resource that it names, and its model, weights and epochs."""

    field: str
    source: str
    metadata: dict[str, str]
    model: ModelSpec
    weights: TensorRef
    initial_epoch: int


@dataclass(frozen=True)
class WarmStart:
    """Finds the weights that a job starts from."""

    jobs: JobQueries
    models: ModelRegistry
    checkpoints: CheckpointStore

    async def apply(self, principal: Principal, requested: Job) -> Job:
        """Return a new job with the fields that a client can set, and with the weights that start_from specifies.

        Raises:
            NotFoundError: The job or model does not exist, or has not kept the weights of start_epoch.
            CannotStartFromError: The job or model has no weights yet, or has different layers.
            InvalidFieldsError: The job to continue already has the requested number of epochs.
        """
        job = Job(spec=requested.spec, labels=requested.labels, start_epoch=requested.start_epoch)
        kind = requested.WhichOneof("start_from")
        if requested.start_epoch < 0:
            raise invalid_field("job.start_epoch", f"must be at least 1, or 0 if unset, got {requested.start_epoch}")
        if requested.start_epoch and kind is None:
            raise invalid_field("job.start_epoch", "needs a job or a model to start from")
        if kind == "continue_job":
            start = await self._continued_job(principal, requested.continue_job, requested.start_epoch)
            job.continue_job = requested.continue_job
        elif kind == "initial_model":
            start = await self._initial_model(principal, requested.initial_model, requested.start_epoch)
            job.initial_model = requested.initial_model
        else:
            return job
        job.spec.CopyFrom(_starting_from(start, requested.spec))
        job.initial_epoch = start.initial_epoch
        return job

    async def _initial_model(self, principal: Principal, model_name: str, epoch: int) -> _Start:
        model = await self.models.get(principal, model_name, epoch)
        return _Start(
            "job.initial_model", model_name, {"model": model_name}, model.spec, model.weights, initial_epoch=0
        )

    async def _continued_job(self, principal: Principal, job_name: str, epoch: int) -> _Start:
        field = "job.continue_job"
        record = await self.jobs.get(principal, job_name)
        spec = record.job.spec
        if epoch:
            model = await self.models.get(principal, f"models/{record.job_id}", epoch)
            return _Start(field, job_name, {"job": job_name}, model.spec, model.weights, epoch)
        if not has_ended(record.job):
            text = f"job {job_name!r} has not ended ({state_name(record.job)}). Wait until it ends, or cancel it first"
            raise CannotStartFromError(field, text, field=field, job=job_name)
        if record.job.model:
            # The model can have the weights of an earlier epoch, the best one.
            last = record.job.last_epoch.epoch
            is_last = last == model_epoch(record.job).epoch
            model = await self.models.get(principal, record.job.model, epoch=0 if is_last else last)
            return _Start(field, job_name, {"job": job_name}, model.spec, model.weights, model.epoch.epoch)
        found = await in_thread(self.checkpoints.newest_as_tensor, record.job_key, spec, record.job.last_epoch.epoch)
        if found is None:
            text = f"job {job_name!r} ended before its first checkpoint. Create a new job without continue_job"
            raise CannotStartFromError(field, text, field=field, job=job_name)
        weights, epoch = found
        return _Start(field, job_name, {"job": job_name}, spec.model, weights, epoch)


def _starting_from(start: _Start, requested: JobSpec) -> JobSpec:
    spec = JobSpec()
    spec.CopyFrom(requested)
    spec.model.CopyFrom(_resolved_model(requested))
    source = f"{'job' if start.field == 'job.continue_job' else 'model'} {start.source!r}"
    if _widths(spec.model) != _widths(start.model):
        text = (
            f"{source} has layers of widths {_widths(start.model)}, but this job has {_widths(spec.model)}. "
            "Use the same layers"
        )
        raise CannotStartFromError(start.field, text, field=start.field, **start.metadata)
    if 0 < spec.epochs <= start.initial_epoch:
        description = (
            f"is {spec.epochs}, but {source} already has {start.initial_epoch} epochs. "
            "Set the total number of epochs, including those"
        )
        raise invalid_field("job.spec.epochs", description)
    # The check of the spec rejects types that are not floats.
    if spec.dtype in _FLOATS and spec.dtype != start.weights.dtype:
        description = f"is {_FLOATS[spec.dtype]}, but {source} has {_FLOATS[start.weights.dtype]}. Use the same dtype"
        raise invalid_field("job.spec.dtype", description)
    _inherit_class_names(spec.model, start)
    spec.dtype = spec.dtype or start.weights.dtype
    for layer in linear_layers(spec.model):
        layer.linear.initialization = Initialization.INITIALIZATION_GIVEN
    spec.initial_weights.CopyFrom(start.weights)
    return spec


def _inherit_class_names(model: ModelSpec, start: _Start) -> None:
    """Give a model the class names of its source. A job that continues another one must not change their order."""
    names = start.model.class_names
    if not model.class_names:
        model.class_names.extend(names)
    elif start.initial_epoch and names and list(names) != list(model.class_names):
        description = f"must be those of {start.source}, in the same order: {', '.join(names)}"
        raise invalid_field("job.spec.model.class_names", description)


def _resolved_model(spec: JobSpec) -> ModelSpec:
    """Return the model with all widths, or unchanged if the data is malformed. Admission then rejects the job."""
    return resolve(spec).model if len(spec.train.inputs.shape) == 2 else spec.model


def _widths(model: ModelSpec) -> str:
    return " ".join(
        f"{layer.linear.in_features}-{layer.linear.out_features}" if layer.HasField("linear") else "relu"
        for layer in model.layers
    )
