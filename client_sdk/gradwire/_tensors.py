"""client.tensors, which uploads arrays before jobs use them. Tensors is the blocking form of AsyncTensors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from gradwire._arrays import to_array
from gradwire._blocking import Portal, blocking
from gradwire._info import StoredTensorInfo, TensorInfo, stored_tensor_info
from gradwire._paging import collect
from gradwire._transport import Transport
from gradwire._types import DType, TransferProgress
from gradwire._uploads import find_missing, upload
from gradwire_engine.spec.tensors import data_type, numpy_dtype, tensor_ref
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.tensor_service_pb2 import (
    DeleteTensorRequest,
    ListTensorsRequest,
    ListTensorsResponse,
    StoredTensor,
)

# Inside the classes, `list` refers to the method.
TensorList: TypeAlias = list[TensorInfo]
StoredTensorList: TypeAlias = list[StoredTensorInfo]


class AsyncTensors:
    """The arrays on a server, available as `client.tensors`. They are identified by the digest of their elements.

    `client.jobs.submit` uploads missing arrays. Use `client.tensors` to upload data earlier, for example for many jobs.
    An array that no job or model references is deleted about a day after its last use,
    or earlier if the disk is nearly full.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def upload(
        self, array: ArrayLike, *, dtype: DType = "float32", on_upload_progress: TransferProgress | None = None
    ) -> TensorInfo:
        """Upload an array, unless the server already has it.

        Args:
            array: The inputs or the targets of a data set.
            dtype: The type to which floats are converted. Use the dtype of the jobs that will use the array.
            on_upload_progress: A function that is called with (sent_bytes, total_bytes) after each uploaded chunk.

        Returns:
            The stored array.
        """
        converted = to_array(array, "array", np.dtype(dtype))
        reference = await asyncio.to_thread(tensor_ref, converted)
        await upload(self._transport, [reference], {reference.sha256: converted}, on_upload_progress)
        return _info(reference)

    async def missing(self, tensors: Sequence[TensorInfo]) -> TensorList:
        """Return the arrays that are not stored on the server, or are only partially stored.

        Args:
            tensors: Arrays that were uploaded before.
        """
        references = [
            TensorRef(dtype=data_type(np.dtype(each.dtype)), shape=each.shape, sha256=each.sha256) for each in tensors
        ]
        return [_info(each.tensor) for each in await find_missing(self._transport, references)]

    async def list(self, limit: int | None = None) -> StoredTensorList:
        """Return the stored arrays, in the order of their digests. They include the weights of models.

        Args:
            limit: The maximum number of arrays, or None for no limit.
        """
        method = self._transport.tensors.ListTensors
        messages = await collect(self._transport, method, ListTensorsRequest(), _tensors_of, limit)
        return [stored_tensor_info(message) for message in messages]

    async def delete(self, tensor: str | TensorInfo | StoredTensorInfo) -> None:
        """Delete an array that no job and no model uses.

        Args:
            tensor: The array, or its SHA-256 digest. If the array is not stored, this has no effect.

        Raises:
            FailedPreconditionError: A job or a model uses it.
        """
        sha256 = tensor if isinstance(tensor, str) else tensor.sha256
        request = DeleteTensorRequest(name=f"tensors/{sha256}", allow_missing=True)
        await self._transport.call(self._transport.tensors.DeleteTensor, request)


def _tensors_of(response: ListTensorsResponse) -> Iterable[StoredTensor]:
    return response.tensors


class Tensors:
    """The arrays on a server, available as `client.tensors`. They are identified by the digest of their elements.

    `client.jobs.submit` uploads missing arrays. Use `client.tensors` to upload data earlier, for example for many jobs.
    An array that no job or model references is deleted about a day after its last use,
    or earlier if the disk is nearly full.
    """

    def __init__(self, tensors: AsyncTensors, portal: Portal) -> None:
        self._async = tensors
        self._portal = portal

    upload = blocking(AsyncTensors.upload)
    missing = blocking(AsyncTensors.missing)
    list = blocking(AsyncTensors.list)
    delete = blocking(AsyncTensors.delete)


def _info(reference: TensorRef) -> TensorInfo:
    return TensorInfo(reference.sha256, str(numpy_dtype(reference.dtype)), tuple(reference.shape))
