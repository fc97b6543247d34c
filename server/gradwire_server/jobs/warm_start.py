"""resume_from: a new job's spec that begins with the weights of a job or a model that is there."""

import asyncio
import hashlib

from gradwire_engine.spec.resolve import network, resolve
from gradwire_proto.v1.spec_pb2 import Initialization, JobSpec, ModelSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.errors import ServiceError, failed_precondition, invalid_argument
from gradwire_server.jobs.commands import Jobs
from gradwire_server.models.registry import Models
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import Checkpoints


class Resumption:
    """Finds the weights that a job goes on from."""

    def __init__(self, jobs: Jobs, models: Models, checkpoints: Checkpoints, blobs: BlobStore) -> None:
        self._jobs = jobs
        self._models = models
        self._checkpoints = checkpoints
        self._blobs = blobs

    async def spec_from(self, source: str, spec: JobSpec) -> JobSpec:
        """Return a copy of `spec` that starts from the source, "jobs/{id}" or "models/{id}"."""
        if source.startswith("models/"):
            model = await self._models.find(source)
            return _starting_from(source, spec, model.spec, model.weights, epochs_done=0)
        if not source.startswith("jobs/"):
            raise invalid_argument([("resume_from", f"must be jobs/... or models/..., got {source[:80]!r}")])
        job = await self._jobs.find(source)
        if not job.ended:
            message = f"names {source}, which has not ended: pause and resume it, or cancel it first"
            raise _cannot_resume(message)
        if job.message.model:
            model = await self._models.find(job.message.model)
            return _starting_from(source, spec, model.spec, model.weights, model.last_epoch.epoch)
        point = await asyncio.to_thread(self._checkpoints.newest, job.id)
        if point is None:
            raise _cannot_resume(f"names {source}, which ended before its first checkpoint: create it anew")
        digest = hashlib.sha256(point.weights).hexdigest()
        await asyncio.to_thread(self._blobs.put, digest, point.weights)
        dtype, size = job.message.spec.dtype, network(job.message.spec.model).size
        weights = TensorRef(dtype=dtype, shape=[size], sha256=digest)
        return _starting_from(source, spec, job.message.spec.model, weights, point.epoch)


def _starting_from(source: str, spec: JobSpec, model: ModelSpec, weights: TensorRef, epochs_done: int) -> JobSpec:
    new = JobSpec()
    new.CopyFrom(spec)
    new.model.CopyFrom(_resolved_model(spec))
    given = _widths(new.model)
    if given != _widths(model):
        raise _cannot_resume(f"names {source}, whose layers are {_widths(model)}; those of this job are {given}")
    if 0 < new.epochs <= epochs_done:
        description = f"is {new.epochs}, but {source} has {epochs_done} epochs behind it: ask for more in total"
        raise invalid_argument([("job.spec.epochs", description)])
    new.dtype = new.dtype or weights.dtype
    for layer in new.model.layers:
        if layer.WhichOneof("kind") == "linear":
            layer.linear.initialization = Initialization.INITIALIZATION_GIVEN
    new.initial_weights.CopyFrom(weights)
    new.epochs_done = epochs_done
    return new


def _resolved_model(spec: JobSpec) -> ModelSpec:
    """The model with all widths, or as it is where the spec is wrong; validation then says how."""
    return resolve(spec).model if len(spec.train.inputs.shape) == 2 else spec.model


def _widths(model: ModelSpec) -> str:
    parts = []
    for layer in model.layers:
        if layer.WhichOneof("kind") == "linear":
            parts.append(f"{layer.linear.in_features}-{layer.linear.out_features}")
        else:
            parts.append("relu")
    return " ".join(parts)


def _cannot_resume(message: str) -> ServiceError:
    return failed_precondition("CANNOT_RESUME", "resume_from", message)
