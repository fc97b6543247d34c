"""Limits the size of a job: the memory that its worker needs, and the events that it writes."""

from dataclasses import dataclass

from gradwire_engine.spec.memory import job_memory
from gradwire_engine.spec.resolve import network
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_server.errors import JobTooLargeError, invalid_field

# The approximate size of an epoch in the store and its indexes, in bytes, and the additional size of the metrics of
# each set.
_EPOCH_BYTES = 120
_METRICS_BYTES = 50
_GIB = 1 << 30


@dataclass(frozen=True)
class SizeLimits:
    """The maximum size of a job.

    Attributes:
        log_bytes: The maximum size of its events, in bytes.
        threads: The number of threads of its worker.
    """

    log_bytes: int
    threads: int

    def check_log(self, spec: JobSpec, initial_epoch: int) -> None:
        """Raise InvalidFieldsError if the events of a job would take too much space.

        Args:
            spec: A resolved spec.
            initial_epoch: The number of epochs that are completed before the job starts.
        """
        sets = 2 if spec.HasField("test") else 1
        per_epoch = _EPOCH_BYTES + sets * _METRICS_BYTES / spec.evaluate_every
        size = (spec.epochs - initial_epoch) * per_epoch
        if size <= self.log_bytes:
            return
        fits = initial_epoch + int(self.log_bytes / per_epoch)
        description = (
            f"is {spec.epochs}, whose events would take {size / _GIB:.1f} GiB in the store. A job may write at most "
            f"{self.log_bytes / _GIB:.1f} GiB: use at most {fits} epochs"
        )
        raise invalid_field("job.spec.epochs", description, max_epochs=fits)

    def check_memory(self, spec: JobSpec, available: int) -> None:
        """Raise JobTooLargeError if a job does not fit into a worker.

        Args:
            spec: A resolved spec.
            available: The memory that a worker has for a job, in bytes, or 0 if it is unknown.
        """
        needed = job_memory(spec, self.threads)
        if 0 < available < needed:
            batch = min(spec.batch_size, spec.train.inputs.shape[0])
            what = f"{network(spec.model).size} parameters, trained on {batch} rows at a time"
            raise JobTooLargeError("job.spec", what, needed, available)
