"""Sends the tensors that a server does not have, each from where an earlier upload of it broke off."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from gradwire._exceptions import DataLossError, OutOfRangeError, UnavailableError
from gradwire._transport import Transport
from gradwire_engine.backend import Array
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_proto.v1.dataset_service_pb2 import (
    FindMissingTensorsRequest,
    MissingTensor,
    UploadHeader,
    UploadTensorRequest,
)
from gradwire_proto.v1.tensor_pb2 import TensorRef

_CHUNK_BYTES = 1 << 20
# An upload that breaks off is taken up again this often, after a wait.
_RETRIES = 5
_WAIT_SECONDS = 0.5

# Called with the bytes that are there already or were sent now, and with the bytes of all tensors.
Progress = Callable[[int, int], None]


async def upload(
    transport: Transport, references: Sequence[TensorRef], tensors: Mapping[str, Array], progress: Progress | None
) -> None:
    """Make sure that the server holds every tensor."""
    for attempt in range(_RETRIES + 1):
        response = await transport.call(
            transport.datasets.FindMissingTensors, FindMissingTensorsRequest(tensors=references)
        )
        try:
            await _send_missing(transport, response.missing, tensors, progress)
        except (UnavailableError, OutOfRangeError, DataLossError):
            if attempt == _RETRIES:
                raise
            await asyncio.sleep(_WAIT_SECONDS * attempt)
        else:
            return


async def _send_missing(
    transport: Transport, missing: Sequence[MissingTensor], tensors: Mapping[str, Array], progress: Progress | None
) -> None:
    total = sum(tensors[each.tensor.sha256].nbytes for each in missing)
    sent = sum(each.received_bytes for each in missing)

    async def requests(each: MissingTensor) -> AsyncIterator[UploadTensorRequest]:
        nonlocal sent
        yield UploadTensorRequest(header=UploadHeader(tensor=each.tensor, offset=each.received_bytes))
        data = wire_bytes(tensors[each.tensor.sha256])
        for start in range(each.received_bytes, len(data), _CHUNK_BYTES):
            chunk = bytes(data[start : start + _CHUNK_BYTES])
            yield UploadTensorRequest(chunk=chunk)
            sent += len(chunk)
            if progress:
                progress(sent, total)

    for each in missing:
        await transport.send(transport.datasets.UploadTensor, requests(each))
