"""Stores checkpoints and chooses the checkpoint from which the next attempt of a job continues."""

import hashlib
from pathlib import PurePosixPath

from gradwire_engine.spec.resolve import network
from gradwire_proto.v1.spec_pb2 import JobSpec
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.storage.blob_store import BlobStore
from gradwire_worker.messages import ResumePoint

# Keep the newest checkpoint, and the previous one in case the newest checkpoint is damaged.
CHECKPOINTS_PER_JOB = 2


class CheckpointStore:
    """The checkpoints of all jobs. Each job has a folder. File names contain the epoch and the digest of the bytes."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def save(self, job_key: int, checkpoint: Checkpoint, weights: bytes) -> None:
        """Store the weights after an epoch and delete older checkpoints that are no longer needed."""
        self._blobs.write(f"{self._folder(job_key)}/{checkpoint.epoch:010}-{checkpoint.weights.sha256}", weights)
        for path in self._files(job_key)[CHECKPOINTS_PER_JOB:]:
            self._blobs.fs.rm_file(path)

    def newest_intact(self, job_key: int) -> ResumePoint | None:
        """Return the newest checkpoint whose bytes match their digest, or None."""
        for path in self._files(job_key):
            epoch, sha256 = _parse(path)
            weights = self._blobs.fs.cat_file(path)
            if hashlib.sha256(weights).hexdigest() == sha256:
                return ResumePoint(epoch, weights)
        return None

    def newest_as_tensor(self, job_key: int, spec: JobSpec) -> tuple[TensorRef, int] | None:
        """Copy the newest intact checkpoint into the blob store.

        Args:
            job_key: The job.
            spec: The resolved spec of the job.

        Returns:
            The tensor and its epoch, or None. Unless something references the tensor, it is deleted about a day later.
        """
        for path in self._files(job_key):
            epoch, sha256 = _parse(path)
            if self._blobs.touch(sha256) or self._blobs.copy(path, sha256):
                return TensorRef(dtype=spec.dtype, shape=[network(spec.model).size], sha256=sha256), epoch
        return None

    def delete_all(self, job_key: int) -> None:
        """Delete all checkpoints of a job."""
        if self._blobs.fs.exists(self._folder(job_key)):
            self._blobs.fs.rm(self._folder(job_key), recursive=True)

    def job_key_of(self, path: str) -> int | None:
        """Return the key of the job that a checkpoint file belongs to, or None if the file is not a checkpoint."""
        parts = PurePosixPath(path).parts
        return int(parts[-2]) if path.startswith(f"{self._blobs.root}/checkpoints/") else None

    def _folder(self, job_key: int) -> str:
        return f"{self._blobs.root}/checkpoints/{job_key}"

    def _files(self, job_key: int) -> list[str]:
        """Return the checkpoint files of a job. The newest file comes first."""
        folder = self._folder(job_key)
        return sorted(self._blobs.fs.ls(folder, detail=False), reverse=True) if self._blobs.fs.exists(folder) else []


def _parse(path: str) -> tuple[int, str]:
    """Return the epoch and the digest of a checkpoint file."""
    epoch, _, sha256 = PurePosixPath(path).name.partition("-")
    return int(epoch), sha256
