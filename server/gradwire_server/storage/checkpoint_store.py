"""Checkpoints of jobs that have not succeeded: where an attempt begins that follows another one."""

import hashlib
from pathlib import PurePosixPath

from gradwire_proto.v1.training_service_pb2 import Checkpoint
from gradwire_server.storage.blob_store import BlobStore
from gradwire_worker.messages import ResumePoint

# The newest, and the one before in case the newest is damaged.
KEPT = 2


class Checkpoints:
    """A folder for each job in the blob store; a file's name is its epoch and the digest of its bytes."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def save(self, job: int, checkpoint: Checkpoint, weights: bytes) -> None:
        """Keep the weights after an epoch, and drop what is older than needed."""
        self._blobs.write(f"{self._folder(job)}/{checkpoint.epoch:010}-{checkpoint.weights.sha256}", weights)
        for path in self._files(job)[KEPT:]:
            self._blobs.fs.rm_file(path)

    def newest(self, job: int) -> ResumePoint | None:
        """Return the newest checkpoint whose bytes have their digest, or None."""
        for path in self._files(job):
            epoch, _, sha256 = PurePosixPath(path).name.partition("-")
            weights = self._blobs.fs.cat_file(path)
            if hashlib.sha256(weights).hexdigest() == sha256:
                return ResumePoint(int(epoch), weights)
        return None

    def drop(self, job: int) -> None:
        """Delete all of a job's checkpoints."""
        if self._blobs.fs.exists(self._folder(job)):
            self._blobs.fs.rm(self._folder(job), recursive=True)

    def job_of(self, path: str) -> int | None:
        """Return the number of the job whose checkpoint the file is, or None."""
        parts = PurePosixPath(path).parts
        return int(parts[-2]) if path.startswith(f"{self._blobs.root}/checkpoints/") else None

    def _folder(self, job: int) -> str:
        return f"{self._blobs.root}/checkpoints/{job}"

    def _files(self, job: int) -> list[str]:
        """Newest first."""
        folder = self._folder(job)
        return sorted(self._blobs.fs.ls(folder, detail=False), reverse=True) if self._blobs.fs.exists(folder) else []
