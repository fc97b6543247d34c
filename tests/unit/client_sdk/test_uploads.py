"""Interrupted uploads: where they continue, what is sent again, and how long they wait."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from grpc import StatusCode as Code
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import status

import gradwire as gw
from gradwire import _uploads
from gradwire._access import Access
from gradwire._exceptions import GradwireError, OutOfRangeError, UnavailableError
from gradwire._transport import Transport
from gradwire._uploads import upload
from gradwire_engine.spec.tensors import tensor_ref
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsResponse, MissingTensor, UploadTensorResponse
from gradwire_server.limits import MAX_CHUNK_BYTES

REAL_CHUNK = _uploads._CHUNK_BYTES
CHUNK = 100
# In the second array, the last chunk is shorter than the others.
ARRAYS = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed, size in ((0, 1000), (1, 1033))]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(_uploads, "_CHUNK_BYTES", CHUNK)


class TensorStore:
    """Handles uploads as a server does. It cuts the n-th upload after `cuts[n]` bytes."""

    def __init__(self, cuts=()):
        self.stored = {}
        self.offsets = []
        self.bytes_read = 0
        self._cuts = iter(cuts)

    def find_missing(self, request):
        found = [(each, len(self.stored.get(each.sha256, b""))) for each in request.tensors]
        missing = [MissingTensor(tensor=each, received_bytes=size) for each, size in found if size < each.shape[0]]
        return FindMissingTensorsResponse(missing=missing)

    def receive(self, requests, fail):
        """Read one upload, or return `fail(...)` at the byte where it is cut."""
        header = next(requests).header
        received = self.stored.setdefault(header.tensor.sha256, bytearray())
        self.offsets.append(header.offset)
        if header.offset != len(received):
            return fail(Code.OUT_OF_RANGE)
        left = next(self._cuts, None)
        for request in requests:
            if left is not None and left < len(request.chunk):
                return fail(Code.UNAVAILABLE)
            left = None if left is None else left - len(request.chunk)
            received += request.chunk
            self.bytes_read += len(request.chunk)
        return UploadTensorResponse()


class StoreTransport(Transport):
    """Calls a TensorStore in this process. It uses the SDK's own retries and waits."""

    tensors = SimpleNamespace(FindMissingTensors=None, UploadTensor=None)

    def __init__(self, store, max_retries=6):
        self.waits = []
        super().__init__("localhost:1", Access(), max_retries=max_retries, sleep=self._wait)
        self._store = store

    async def call(self, _method, request):
        return self._store.find_missing(request)

    async def send(self, _method, requests):
        sent = [request async for request in requests]
        answer = self._store.receive(iter(sent), lambda code: code)
        if answer is Code.OUT_OF_RANGE:
            raise OutOfRangeError("another upload interfered")
        if answer is Code.UNAVAILABLE:
            raise UnavailableError("cut")
        return answer

    async def _wait(self, seconds):
        self.waits.append(seconds)


def run(transport, arrays=ARRAYS, on_progress=None):
    references = [tensor_ref(array) for array in arrays]
    by_digest = {reference.sha256: array for reference, array in zip(references, arrays, strict=True)}
    asyncio.run(upload(transport, references, by_digest, on_progress))
    return [reference.sha256 for reference in references]


def test_a_cut_upload_continues_after_the_bytes_that_arrived_over_a_real_connection(scripted):
    store = TensorStore(cuts=[350])
    scripted.answer("FindMissingTensors", store.find_missing)
    scripted.answer(
        "UploadTensor",
        lambda requests: store.receive(requests, lambda code: status(code, "cut", reason="X", retry_after=0.01)),
    )
    progress = []
    with gw.Client(scripted.address) as client:
        info = client.tensors.upload(ARRAYS[0], on_upload_progress=lambda done, total: progress.append((done, total)))
    assert store.stored[info.sha256] == ARRAYS[0].tobytes()
    assert store.offsets == [0, 300]
    assert store.bytes_read == 1000, "nothing that had arrived was sent again"
    assert progress[-1] == (1000, 1000)
    assert (400, 1000) in progress[-7:], "the progress continues where the upload does"


@settings(max_examples=200, deadline=None)
@given(cuts=st.lists(st.integers(0, 1100), max_size=5))
def test_an_upload_that_is_cut_anywhere_arrives_and_sends_nothing_twice(cuts):
    store = TensorStore(cuts)
    transport = StoreTransport(store)
    digests = run(transport)
    assert [bytes(store.stored[digest]) for digest in digests] == [array.tobytes() for array in ARRAYS]
    assert store.bytes_read == sum(array.nbytes for array in ARRAYS)


def test_the_wait_grows_after_each_cut_of_an_upload():
    transport = StoreTransport(TensorStore(cuts=[100, 100, 100]))
    run(transport)
    assert transport.waits == [0.1, 0.25, pytest.approx(0.625)]


def test_the_progress_of_a_cut_upload_goes_back_to_what_has_arrived():
    progress = []
    run(StoreTransport(TensorStore(cuts=[650])), ARRAYS[:1], lambda *counts: progress.append(counts))
    sent = [*range(100, 1001, 100), 700, 800, 900, 1000]
    assert progress == [(count, 1000) for count in sent]


def test_a_chunk_is_small_enough_for_a_server_and_large_enough_to_be_fast():
    assert 1 << 18 <= REAL_CHUNK <= MAX_CHUNK_BYTES // 2


def test_an_upload_fails_after_the_last_retry():
    store = TensorStore(cuts=[0] * 9)
    with pytest.raises(UnavailableError, match="cut"):
        run(StoreTransport(store, max_retries=2))
    assert store.offsets == [0, 0, 0]


def test_an_overtaken_upload_asks_again_where_to_continue():
    class Overtaken(TensorStore):
        def receive(self, requests, fail):
            if not self.offsets:  # Between the query and the upload, another client sends 500 bytes.
                requests = list(requests)
                sha256 = requests[0].header.tensor.sha256
                self.stored[sha256] = bytearray(next(a for a in ARRAYS if tensor_ref(a).sha256 == sha256)[:500])
            return super().receive(iter(requests), fail)

    store = Overtaken()
    transport = StoreTransport(store)
    digests = run(transport, ARRAYS[:1])
    assert store.stored[digests[0]] == ARRAYS[0].tobytes()
    assert (store.offsets, transport.waits) == ([0, 500], [])


def test_an_upload_that_is_always_overtaken_ends():
    class AlwaysElsewhere(TensorStore):
        def receive(self, requests, fail):
            self.offsets.append(next(requests).header.offset)
            return fail(Code.OUT_OF_RANGE)

    store = AlwaysElsewhere()
    with pytest.raises(GradwireError, match="another upload interfered"):
        run(StoreTransport(store, max_retries=3))
    assert store.offsets == [0] * 4
