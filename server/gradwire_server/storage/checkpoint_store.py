"""Stores checkpoints and chooses the checkpoint from which the next attempt of a job continues."""

import hashlib
from collections.abc import Collection
from pathlib import PurePosixPath

from gradwire_engine.spec.resolve import network
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.storage.blob_store import BlobStore
from gradwire_worker.messages import ResumePoint

# The newest checkpoint, and the previous one in case the newest checkpoint is damaged, besides the kept epochs.
CHECKPOINTS_PER_JOB = 2


class CheckpointStore:
    """The checkpoints of all jobs. Each job has a folder. File names contain the epoch and the digest of the bytes."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def save(self, job_key: int, checkpoint: Checkpoint, weights: bytes) -> None:
        """Store the weights after an epoch."""
        path = f"{self._folder(job_key)}/{checkpoint.epoch:010}-{checkpoint.weights.sha256}"
        self._blobs.write(path, weights)
        for other in self._files(job_key):
            if _epoch_of(other) == checkpoint.epoch and other != path:  # The epoch ran again, with a different result.
                self._blobs.fs.rm_file(other)

    def prune(self, job_key: int, kept: Collection[int], others: int = CHECKPOINTS_PER_JOB) -> None:
        """Delete the checkpoints that are no longer needed.

        Args:
            job_key: The job.
            kept: The epochs that are kept.
            others: How many of the newest other checkpoints to keep.
        """
        for path in [path for path in self._files(job_key) if _epoch_of(path) not in kept][others:]:
            self._blobs.fs.rm_file(path)

    def delete_after(self, job_key: int, epoch: int) -> None:
        """Delete the checkpoints of later epochs."""
        for path in self._files(job_key):
            if _epoch_of(path) > epoch:
                self._blobs.fs.rm_file(path)

    def newest_intact(self, job_key: int, up_to: int) -> ResumePoint | None:
        """Return the newest checkpoint whose bytes match their digest, or None.

        Args:
            job_key: The job.
            up_to: The last epoch to consider. The epochs up to a checkpoint must be stored before it can be used.
        """
        for path in self._files(job_key, up_to):
            weights = self._blobs.fs.cat_file(path)
            if hashlib.sha256(weights).hexdigest() == _sha256_of(path):
                return ResumePoint(_epoch_of(path), weights)
        return None

    def is_intact(self, job_key: int, epoch: int) -> bool:
        """Return whether there is a checkpoint of an epoch whose bytes match their digest."""
        point = self.newest_intact(job_key, epoch)
        return point is not None and point.epoch == epoch

    def newest_as_tensor(self, job_key: int, spec: JobSpec, up_to: int) -> tuple[TensorRef, int] | None:
        """Copy the newest intact checkpoint into the blob store.

        Args:
            job_key: The job.
            spec: The resolved spec of the job.
            up_to: The last epoch to consider, as for `newest_intact`.

        Returns:
            The tensor and its epoch, or None. Unless something references the tensor, it is deleted about a day later.
        """
        for path in self._files(job_key, up_to):
            tensor = self._tensor(path, spec)
            if tensor is not None:
                return tensor, _epoch_of(path)
        return None

    def as_tensor(self, job_key: int, epoch: int, spec: JobSpec) -> TensorRef | None:
        """Copy the checkpoint of an epoch into the blob store, as `newest_as_tensor` does.

        Returns:
            The tensor, or None if there is no checkpoint of this epoch, or it is damaged.
        """
        path = next((path for path in self._files(job_key) if _epoch_of(path) == epoch), None)
        return None if path is None else self._tensor(path, spec)

    def delete_all(self, job_key: int) -> None:
        """Delete all checkpoints of a job."""
        if self._blobs.fs.exists(self._folder(job_key)):
            self._blobs.fs.rm(self._folder(job_key), recursive=True)

    def job_key_of(self, path: str) -> int | None:
        """Return the key of the job that a checkpoint file belongs to, or None if the file is not a checkpoint."""
        parts = PurePosixPath(path).parts
        return int(parts[-2]) if path.startswith(f"{self._blobs.root}/checkpoints/") else None

    def _tensor(self, path: str, spec: JobSpec) -> TensorRef | None:
        """Copy a checkpoint file into the blob store. Returns None if it is damaged."""
        sha256 = _sha256_of(path)
        if self._blobs.touch(sha256) or self._blobs.copy(path, sha256):
            return TensorRef(dtype=spec.dtype, shape=[network(spec.model).size], sha256=sha256)
        return None

    def _folder(self, job_key: int) -> str:
        return f"{self._blobs.root}/checkpoints/{job_key}"

    def _files(self, job_key: int, up_to: int | None = None) -> list[str]:
        """Return the checkpoint files of a job, newest first, optionally only those up to an epoch."""
        folder = self._folder(job_key)
        files = sorted(self._blobs.fs.ls(folder, detail=False), reverse=True) if self._blobs.fs.exists(folder) else []
        return [path for path in files if up_to is None or _epoch_of(path) <= up_to]


def _epoch_of(path: str) -> int:
    return int(PurePosixPath(path).name.partition("-")[0])


def _sha256_of(path: str) -> str:
    return PurePosixPath(path).name.partition("-")[2]
