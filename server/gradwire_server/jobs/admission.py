"""Checks a job and its data before the job is created, so that accepted jobs can run."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from gradwire_engine.spec.resolve import architecture, references, resolve
from gradwire_engine.spec.summary import TensorSummary, summarize
from gradwire_engine.spec.tensors import tensor_type
from gradwire_engine.spec.validation import Violation, check_data, check_spec, is_classification
from gradwire_proto.v1.spec_pb2 import Device, JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.errors import (
    FieldViolation,
    InvalidFieldsError,
    NoGpuError,
    TensorDamagedError,
    TensorMissingError,
)
from gradwire_server.jobs.job_size import SizeLimits
from gradwire_server.jobs.labels import check_labels
from gradwire_server.jobs.warm_start import WarmStart
from gradwire_server.principal import Principal
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.disk_space import DiskSpace
from gradwire_server.store import tensor_queries
from gradwire_server.store.database import Database
from gradwire_server.threads import in_thread
from gradwire_worker.blob_reader import BlobLostError

# The path from CreateJobRequest to the spec.
_SPEC_PATH = "job.spec."
# The maximum number of tensors that are read at a time, which leaves threads for other calls.
_MAX_READ_TENSORS = 4
# The specs of models with more layers are checked in a thread.
_MANY_LAYERS = 50


@dataclass(frozen=True)
class AdmittedJob:
    """A job that can run. All fields of its spec have values, and all its data is stored and valid.

    Attributes:
        job: The job, without a name.
        classification: Whether its epochs report classification metrics.
        check_stored: A query that raises TensorMissingError if a tensor has been deleted since the job was admitted.
    """

    job: Job
    classification: bool
    check_stored: Callable[[Connection], None]


@dataclass(frozen=True)
class Admission:
    """Checks jobs against the rules of the engine, the stored tensors, the cluster and the free disk space.

    Attributes:
        cluster_has_gpu: Whether a job can have a GPU.
        limits: How large a job can be.
        worker_memory: The memory that a worker has for a job, in bytes, or 0 if it is unknown.
    """

    database: Database
    blobs: BlobStore
    disk_space: DiskSpace
    warm_start: WarmStart
    cluster_has_gpu: Callable[[], bool]
    limits: SizeLimits
    worker_memory: Callable[[], int]
    _reading: asyncio.Semaphore = dataclasses.field(default_factory=lambda: asyncio.Semaphore(_MAX_READ_TENSORS))

    async def admit(self, principal: Principal, requested: Job) -> AdmittedJob:
        """Check a requested job and return it as it will be created.

        Args:
            principal: The caller.
            requested: The requested job. Only spec, labels, start_from and start_epoch are used.

        Raises:
            InvalidFieldsError: Fields of the job or values in its data are invalid.
            PreconditionError: A tensor is missing or damaged, the cluster has no GPU or too little memory, or the job
                cannot start from the job or model that it names.
            NotFoundError: The job or model to start from does not exist.
            DiskFullError: There is not enough disk space for new work.
        """
        self.disk_space.require_for_new_work()
        check_labels(requested.labels)
        job = await self.warm_start.apply(principal, requested)
        # The spec is checked before the tensors, whose checks take longer.
        if len(job.spec.model.layers) > _MANY_LAYERS:
            spec = await in_thread(self._resolved, job)
        else:
            spec = self._resolved(job)
        classification = await self._check_tensors(job.spec)
        job.spec.CopyFrom(spec)
        job.architecture, job.epochs = architecture(spec.model), spec.epochs
        return AdmittedJob(job, classification, partial(self._check_not_deleted, references(job.spec)))

    def _resolved(self, job: Job) -> JobSpec:
        """Check the spec of a job and its size, and return the resolved spec."""
        _refuse(check_spec(job.spec))
        spec = resolve(job.spec)
        self.limits.check_log(spec, job.initial_epoch)
        kept_bytes = self.limits.check_kept(spec, job.initial_epoch)
        if self.blobs.is_local and kept_bytes:  # An object store uses other disks.
            self.disk_space.require_for_new_work(kept_bytes)
        self.limits.check_memory(spec, self.worker_memory())
        return spec

    def _check_not_deleted(self, tensors: Mapping[str, TensorRef], connection: Connection) -> None:
        # Writes wait for this transaction, so it calls the blob store, which can be slow, only if a summary is missing.
        # Whoever deletes a tensor also deletes its summary.
        if not tensor_queries.has_summaries(connection, {_key(reference) for reference in tensors.values()}):
            self._check_all_stored(tensors)

    def _check_all_stored(self, tensors: Mapping[str, TensorRef]) -> None:
        """Mark the tensors as used, or raise TensorMissingError."""
        checked: set[str] = set()
        for field, reference in tensors.items():
            if reference.sha256 not in checked and not self.blobs.touch(reference.sha256):
                raise TensorMissingError(_SPEC_PATH + field, reference.sha256)
            checked.add(reference.sha256)

    async def _check_tensors(self, spec: JobSpec) -> bool:
        """Check the data of a valid spec. Returns whether the epochs report classification metrics."""
        tensors = references(spec)
        await in_thread(self._check_sizes, tensors)
        keys = {_key(reference) for reference in tensors.values()}
        summaries = await self.database.read(lambda connection: tensor_queries.find_summaries(connection, keys))
        for field, reference in tensors.items():
            if _key(reference) not in summaries:
                summaries[_key(reference)] = await self._summarize(field, reference)

        def summary_of(reference: TensorRef) -> TensorSummary:
            return summaries[_key(reference)]

        _refuse(check_data(spec, summary_of))
        if spec.device == Device.DEVICE_GPU and not self.cluster_has_gpu():
            raise NoGpuError(f"{_SPEC_PATH}device")
        return is_classification(spec, summary_of)

    def _check_sizes(self, tensors: Mapping[str, TensorRef]) -> None:
        """Check that the tensors are stored and have the sizes of their dtypes and shapes."""
        self._check_all_stored(tensors)
        for field, reference in tensors.items():
            expected, stored = tensor_type(reference).size_bytes, self.blobs.size(reference.sha256)
            if expected != stored:
                description = (
                    f"has {expected} bytes according to its dtype and shape, but the stored tensor {reference.sha256} "
                    f"has {stored}"
                )
                _refuse([Violation(field, description)])

    async def _summarize(self, field: str, reference: TensorRef) -> TensorSummary:
        """Read a tensor, and store its summary."""
        try:
            async with self._reading:
                summary = await in_thread(lambda: summarize(self.blobs.load(reference)))
        except BlobLostError as error:
            # If the damaged blob is deleted, the tensor is missing, and clients can upload it again.
            await in_thread(self.blobs.delete, reference.sha256)
            await self.database.write(lambda connection: tensor_queries.delete_summaries(connection, reference.sha256))
            raise TensorDamagedError(_SPEC_PATH + field, reference.sha256, str(error)) from error

        def save(connection: Connection) -> None:
            # A tensor that was deleted in the meantime must not have a summary; see _check_not_deleted.
            tensor_queries.lock_tensors(connection, to_delete=False)
            if self.blobs.has(reference.sha256):
                tensor_queries.save_summary(connection, _key(reference), summary)

        await self.database.write(save)
        return summary


def _refuse(violations: Sequence[Violation]) -> None:
    if violations:
        raise InvalidFieldsError([FieldViolation(_SPEC_PATH + each.field, each.description) for each in violations])


def _key(reference: TensorRef) -> str:
    return f"{reference.sha256}:{reference.dtype}:{','.join(map(str, reference.shape))}"
