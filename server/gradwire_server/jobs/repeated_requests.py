"""Checks whether a request with a known request_id is the same as the request that created the job."""

from gradwire_engine.spec.resolve import linear_layers, resolve
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import CreateJobRequest, Job
from gradwire_server.errors import RequestIdReusedError


def check_repeated(request: CreateJobRequest, created: Job) -> None:
    """Raise RequestIdReusedError, which lists the differing fields, unless the requests are the same.

    Args:
        request: The new request.
        created: The job that the earlier request with the same request_id created.
    """
    fields = []
    if request.job_id and created.name != f"jobs/{request.job_id}":
        fields.append("job_id")
    if request.job.labels != created.labels:
        fields.append("job.labels")
    start = request.job.WhichOneof("start_from")
    if start != created.WhichOneof("start_from") or (start and getattr(request.job, start) != getattr(created, start)):
        fields.append("job.start_from")
    if request.job.start_epoch != created.start_epoch:
        fields.append("job.start_epoch")
    fields += _differing_fields(request.job.spec, created.spec, is_warm_start=start is not None)
    if fields:
        raise RequestIdReusedError(created.name, fields)


def _differing_fields(requested: JobSpec, created: JobSpec, *, is_warm_start: bool) -> list[str]:
    # The spec of a stored job is resolved. If a spec cannot be resolved, it was never accepted.
    spec, job_spec = JobSpec(), JobSpec()
    spec.CopyFrom(resolve(requested) if len(requested.train.inputs.shape) == 2 else requested)
    job_spec.CopyFrom(created)
    if is_warm_start:
        for each in (spec, job_spec):
            _clear_warm_start(each)
        if not requested.model.class_names:
            job_spec.model.ClearField("class_names")
        spec.dtype = requested.dtype or job_spec.dtype
    names = [field.name for field in JobSpec.DESCRIPTOR.fields]
    return [f"job.spec.{name}" for name in names if getattr(spec, name) != getattr(job_spec, name)]


def _clear_warm_start(spec: JobSpec) -> None:
    """Clear the fields that a warm start sets."""
    spec.ClearField("initial_weights")
    for layer in linear_layers(spec.model):
        layer.linear.ClearField("initialization")
