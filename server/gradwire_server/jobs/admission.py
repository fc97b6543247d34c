"""Is this a job that can be trained? The rules are the engine's; here they meet what the server has."""

import asyncio
from dataclasses import dataclass

from gradwire_engine.spec.resolve import references, resolve
from gradwire_engine.spec.summary import TensorSummary, summarize
from gradwire_engine.spec.tensors import tensor_type
from gradwire_engine.spec.validation import Violation, check_data, check_spec, is_classification
from gradwire_proto.v1.spec_pb2 import Device, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_server.errors import failed_precondition, invalid_argument
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.disk_space import Room
from gradwire_server.store import queries
from gradwire_server.store.database import Database
from gradwire_server.workers.ray_cluster import Runner
from gradwire_worker.blob_reader import BlobLostError

# The path from CreateJobRequest to the spec.
_PREFIX = "job.spec."


@dataclass(frozen=True)
class ValidJob:
    """A spec with nothing left open, all of whose data is here and good."""

    spec: JobSpec
    classification: bool


class Validator:
    """Checks specs against the rules, the blobs and the cluster."""

    def __init__(self, database: Database, blobs: BlobStore, runner: Runner, room: Room) -> None:
        self._database = database
        self._room = room
        self._blobs = blobs
        self._runner = runner

    async def check(self, spec: JobSpec) -> ValidJob:
        """Return the resolved job, or raise INVALID_ARGUMENT, FAILED_PRECONDITION or RESOURCE_EXHAUSTED."""
        self._room.refuse_new_work()
        _refuse(check_spec(spec))
        for field, reference in references(spec).items():
            self._check_stored(field, reference)
        summaries = {
            _key(reference): await self._summary(field, reference) for field, reference in references(spec).items()
        }

        def remembered(reference: TensorRef) -> TensorSummary:
            return summaries[_key(reference)]

        _refuse(check_data(spec, remembered))
        if spec.device == Device.DEVICE_GPU and not self._runner.has_gpu:
            message = "is DEVICE_GPU, but the cluster has no GPU: use DEVICE_AUTO, or add a node with one"
            raise failed_precondition("NO_GPU", f"{_PREFIX}device", message)
        return ValidJob(resolve(spec), is_classification(spec, remembered))

    def _check_stored(self, field: str, reference: TensorRef) -> None:
        if not self._blobs.keep(reference.sha256):
            raise failed_precondition(
                "TENSOR_MISSING",
                f"{_PREFIX}{field}",
                f"names the tensor {reference.sha256}, which is not here or not fully uploaded: "
                "send it with DatasetService.UploadTensor",
            )
        expected, stored = tensor_type(reference).size_bytes, self._blobs.size(reference.sha256)
        if expected != stored:
            description = (
                f"says {expected} bytes by its dtype and shape, but the tensor {reference.sha256} has {stored}"
            )
            _refuse([Violation(field, description)])

    async def _summary(self, field: str, reference: TensorRef) -> TensorSummary:
        key = _key(reference)
        known = await self._database.read(lambda connection: queries.find_summary(connection, key))
        if known is not None:
            return known
        try:
            found = await asyncio.to_thread(lambda: summarize(self._blobs.load(reference)))
        except BlobLostError as error:
            raise failed_precondition("TENSOR_DAMAGED", f"{_PREFIX}{field}", f"cannot be read: {error}") from error
        await self._database.write(lambda connection: queries.save_summary(connection, key, found))
        return found


def _refuse(violations: list[Violation]) -> None:
    if violations:
        raise invalid_argument([(_PREFIX + violation.field, violation.description) for violation in violations])


def _key(reference: TensorRef) -> str:
    return f"{reference.sha256}:{reference.dtype}:{','.join(map(str, reference.shape))}"
