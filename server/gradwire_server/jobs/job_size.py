"""Limits the size of a job: the memory that its worker needs, and the events and weights that it stores."""

from dataclasses import dataclass

from gradwire_engine.spec.memory import job_memory
from gradwire_engine.spec.resolve import network, weights_bytes
from gradwire_engine.spec.stopping import rules_of
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_server.errors import JobTooLargeError, invalid_field

# The approximate size of an epoch in the store and its indexes, in bytes, and the additional size of the metrics of
# each set.
_EPOCH_BYTES = 120
_METRICS_BYTES = 50
_GIB = 1 << 30
# The maximum number of epochs that a job can keep because of their numbers, and the maximum size of their weights.
_MAX_KEPT_EPOCHS = 1000
_MAX_KEPT_BYTES = 16 * _GIB


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

    def check_kept(self, spec: JobSpec, initial_epoch: int) -> int:
        """Raise InvalidFieldsError if a job would keep too many weights.

        Args:
            spec: A resolved spec.
            initial_epoch: The number of epochs that are completed before the job starts.

        Returns:
            The size of the weights that the job keeps until it is deleted, in bytes.
        """
        size = weights_bytes(spec)
        every, epochs = spec.keep.every, spec.epochs - initial_epoch
        if every:
            fits = max(1, min(_MAX_KEPT_EPOCHS, _MAX_KEPT_BYTES // size))
            kept = spec.epochs // every - initial_epoch // every
            if kept > fits:
                min_every = -(-epochs // fits)
                description = (
                    f"is {every}, which keeps the weights of {kept} epochs. This job can keep those of at most {fits}: "
                    f"use {min_every} or more"
                )
                raise invalid_field("job.spec.keep.every", description, min_every=min_every)
            return kept * size
        return size if rules_of(spec).needs_best else 0

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
