"""Reads blobs as memory-mapped arrays. A blob is fetched once on each node and verified against its digest."""

import hashlib
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from gradwire_engine.backend import Array
from gradwire_engine.spec.tensors import tensor_type
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_worker.blob_urls import without_credentials

_log = logging.getLogger(__name__)

_READ_BYTES = 1 << 24


class BlobLostError(RuntimeError):
    """A blob that a job needs is missing, or its bytes do not match its digest."""


def _node_cache() -> Path:
    """Return the cache that the workers on this node share, or a new one if another user has taken its name."""
    shared = Path(tempfile.gettempdir(), f"gradwire-cache-{os.getuid()}")
    with suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    found = shared.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return shared
    return Path(tempfile.mkdtemp(prefix="gradwire-cache-"))


class BlobReader:
    """Reads blobs from a store. Local files are mapped directly. Other files are first copied to a local cache."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self.url = url
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self.is_local = "file" in np.atleast_1d(self.fs.protocol)
        self._cache = cache
        self._verified: set[str] = set()

    def blob_path(self, sha256: str) -> str:
        """Return the path of a blob in the store's file system."""
        return f"{self.root}/{sha256[:2]}/{sha256}"

    def has(self, sha256: str) -> bool:
        """Return whether the blob is in the store, as seen from this process."""
        return bool(self.fs.exists(self.blob_path(sha256)))

    def size(self, sha256: str) -> int:
        """Return the size of an existing blob, in bytes."""
        return int(self.fs.size(self.blob_path(sha256)))

    def load(self, reference: TensorRef) -> Array:
        """Return a tensor as a read-only, memory-mapped array. Each reader verifies the digest of each blob once.

        Raises:
            BlobLostError: The blob is missing or damaged.
        """
        kind = tensor_type(reference)
        return np.memmap(self.fetch(reference), dtype=kind.dtype, mode="r", shape=kind.shape)

    def fetch(self, reference: TensorRef) -> Path:
        """Return a file on this node with the verified bytes of a tensor.

        Raises:
            BlobLostError: The blob is missing or damaged.
        """
        size = tensor_type(reference).size_bytes
        path = self._node_path(reference.sha256)
        try:
            self._check(path, reference.sha256, size)
        except BlobLostError:
            if self.is_local:
                raise
            path.unlink()  # The cached copy is damaged, but the blob in the store may be intact.
            path = self._node_path(reference.sha256)
            self._check(path, reference.sha256, size)
        return path

    def _node_path(self, sha256: str) -> Path:
        source = self.blob_path(sha256)
        if not self.fs.exists(source):
            # The URL is not in the error, because clients receive the error.
            _log.warning("blob %s is not in the store %s", sha256, without_credentials(self.url))
            raise BlobLostError(f"blob {sha256} is not in the blob store")
        if self.is_local:
            return Path(source)
        if self._cache is None:
            self._cache = _node_cache()
        cached = self._cache / sha256
        if not cached.exists():
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as scratch:
                fetched = Path(scratch, sha256)
                self.fs.get_file(source, str(fetched))
                fetched.replace(cached)
        return cached

    def _check(self, path: Path, sha256: str, size: int) -> None:
        if path.stat().st_size != size:
            raise BlobLostError(f"blob {sha256} has {path.stat().st_size} bytes, expected {size}")
        if sha256 not in self._verified:
            self._verify(path, sha256)

    def _verify(self, path: Path, sha256: str) -> None:
        digest: Any = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        if digest.hexdigest() != sha256:
            raise BlobLostError(f"blob {sha256} is damaged: its bytes have the digest {digest.hexdigest()}")
        self._verified.add(sha256)
