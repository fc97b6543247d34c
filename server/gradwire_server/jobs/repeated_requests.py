"""Repeated requests: whether a request with a known request_id is the one that created the job."""

from gradwire_engine.spec.resolve import resolve
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import RequestIdReusedError

# The fields of the spec that a warm start overrides.
_SET_BY_WARM_START = {"model", "dtype", "initial_weights"}


def check_repeated(requested: Job, job_id: str, created: Job) -> None:
    """Raise RequestIdReusedError, naming the fields that differ, unless the request is the one that created the job.

    Args:
        requested: The job of the new request.
        job_id: The id that the new request asks for; empty for any.
        created: The job that the earlier request created.
    """
    fields = []
    if job_id and created.name != f"jobs/{job_id}":
        fields.append("job_id")
    if requested.labels != created.labels:
        fields.append("job.labels")
    start = requested.WhichOneof("start_from")
    if start != created.WhichOneof("start_from") or (start and getattr(requested, start) != getattr(created, start)):
        fields.append("job.start_from")
    ignored = _SET_BY_WARM_START if start else set()
    fields += [f"job.spec.{name}" for name in _differing_fields(requested.spec, created.spec) if name not in ignored]
    if fields:
        raise RequestIdReusedError(created.name, fields)


def _differing_fields(requested: JobSpec, created: JobSpec) -> list[str]:
    # The spec of a job is resolved. A spec that cannot be resolved was never accepted.
    spec = resolve(requested) if len(requested.train.inputs.shape) == 2 else requested
    names = [field.name for field in JobSpec.DESCRIPTOR.fields]
    return [name for name in names if getattr(spec, name) != getattr(created, name)]
