"""Lists stored tensors and deletes unreferenced ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gradwire_server.errors import TensorInUseError, TensorNotFoundError
from gradwire_server.principal import Principal
from gradwire_server.resource_names import digest_in
from gradwire_server.storage.blob_store import BlobStore, StoredBlob
from gradwire_server.store import tensor_queries
from gradwire_server.store.database import Database
from gradwire_server.threads import in_thread


@dataclass(frozen=True)
class ListedTensor:
    """A stored tensor, and whether a job or a model references it."""

    blob: StoredBlob
    referenced: bool


@dataclass(frozen=True)
class Tensors:
    """Lists and deletes stored tensors, which are complete."""

    database: Database
    blobs: BlobStore

    async def list(self, _principal: Principal, after: str, count: int) -> tuple[Sequence[ListedTensor], bool]:
        """Return the next tensors in the order of their digests, and whether there are more.

        Args:
            after: The digest after which to start, or an empty string to start at the beginning.
            count: The maximum number of tensors to return.
        """
        found = await in_thread(self.blobs.blobs_after, after, count + 1)
        digests = [blob.sha256 for blob in found[:count]]
        referenced = await self.database.read(lambda connection: tensor_queries.referenced_among(connection, digests))
        listed = [ListedTensor(blob, blob.sha256 in referenced) for blob in found[:count]]
        return listed, len(found) > count

    async def delete(self, _principal: Principal, tensor_name: str) -> None:
        """Delete a tensor.

        Raises:
            TensorNotFoundError: The tensor is not stored.
            TensorInUseError: A job or a model references the tensor.
        """
        sha256 = digest_in(tensor_name)
        if sha256 is None or sha256 == self.blobs.probe or not await in_thread(self.blobs.has, sha256):
            raise TensorNotFoundError(tensor_name)

        def delete(connection: Connection) -> None:
            tensor_queries.lock_tensors(connection, to_delete=True)
            owner = tensor_queries.owner_of(connection, sha256)
            if owner is not None:
                raise TensorInUseError(tensor_name, owner)
            tensor_queries.delete_summaries(connection, sha256)
            # Jobs that are created afterwards must find that the tensor is missing, so the transaction waits for this.
            self.blobs.delete(sha256)

        await self.database.write(delete)
