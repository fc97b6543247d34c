"""Sends the tensors that a server does not have, and continues interrupted uploads."""

from collections.abc import AsyncIterator, Mapping, Sequence

from gradwire._exceptions import DataLossError, GradwireError, OutOfRangeError
from gradwire._transport import Transport
from gradwire._types import TransferProgress
from gradwire_engine.backend import Array
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.tensor_service_pb2 import (
    FindMissingTensorsRequest,
    MissingTensor,
    UploadHeader,
    UploadTensorRequest,
)

_CHUNK_BYTES = 1 << 20


async def find_missing(transport: Transport, references: Sequence[TensorRef]) -> Sequence[MissingTensor]:
    """Return the tensors that the server does not have, in the order of the references."""
    request = FindMissingTensorsRequest(tensors=references)
    response = await transport.call(transport.tensors.FindMissingTensors, request)
    return response.missing


async def upload(
    transport: Transport,
    references: Sequence[TensorRef],
    arrays: Mapping[str, Array],
    on_progress: TransferProgress | None = None,
) -> None:
    """Make sure that the server has every tensor.

    Args:
        transport: The connection.
        references: The tensors.
        arrays: The elements of the tensors, keyed by SHA-256 digest.
        on_progress: A function that is called after each chunk.
    """
    total: int | None = None
    attempt = 0
    while True:
        missing = await find_missing(transport, references)
        left = sum(arrays[each.tensor.sha256].nbytes - each.received_bytes for each in missing)
        total = left if total is None else total
        progress = _Progress(total - left, total, on_progress)
        try:
            for each in missing:
                requests = _requests(each, arrays[each.tensor.sha256], progress)
                await transport.send(transport.tensors.UploadTensor, requests)
        except (OutOfRangeError, DataLossError):  # Another upload of the same tensor interfered.
            if attempt >= transport.max_retries:
                raise
        except GradwireError as error:
            await transport.wait_before_retry(error, attempt)
        else:
            return
        attempt += 1


class _Progress:
    """Counts the bytes sent."""

    def __init__(self, sent: int, total: int, report: TransferProgress | None) -> None:
        self._sent, self._total, self._report = sent, total, report

    def add(self, count: int) -> None:
        """Count a chunk and report the progress."""
        self._sent += count
        if self._report:
            self._report(self._sent, self._total)


async def _requests(missing: MissingTensor, array: Array, progress: _Progress) -> AsyncIterator[UploadTensorRequest]:
    """Yield the header and the chunks of one tensor."""
    yield UploadTensorRequest(header=UploadHeader(tensor=missing.tensor, offset=missing.received_bytes))
    data = wire_bytes(array)
    for start in range(missing.received_bytes, len(data), _CHUNK_BYTES):
        chunk = bytes(data[start : start + _CHUNK_BYTES])
        yield UploadTensorRequest(chunk=chunk)
        progress.add(len(chunk))
