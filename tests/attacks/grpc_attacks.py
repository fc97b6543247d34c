"""Attacks through gRPC."""

import asyncio
import os
import random
from collections.abc import AsyncIterator

import grpc
import numpy as np
from attacks.attacker import LARGE_MODEL, MODELS, RUNNING_JOB, TENSORS, TRAINING, WIDE_MODEL, Attack, Attacker, forever
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from stalled_client import StalledClient

from gradwire_engine.spec.tensors import tensor_ref, to_tensor
from gradwire_proto.v1.model_service_pb2 import DownloadModelRequest, PredictRequest
from gradwire_proto.v1.spec_pb2 import JobSpec, Layer, Linear, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, TensorRef
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsRequest, UploadHeader, UploadTensorRequest
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    DeleteJobRequest,
    GetJobRequest,
    Job,
    ListJobsRequest,
    WatchJobRequest,
)

_GET_JOB = (f"{TRAINING}/GetJob", GetJobRequest(name=RUNNING_JOB).SerializeToString())
_HEALTH = "/grpc.health.v1.Health"
_EMPTY_LAYERS = (17 << 20) * b"\x0a\x00"
# Tensors with a million sizes: fields 1 and 2 of requests whose tensor is in that field.
_SHAPE = b"\x12\xc0\x84\x3d" + 1_000_000 * b"\x01"
_CHUNK_BYTES = 4 << 20


async def valid_calls(attacker: Attacker) -> None:
    """Call GetJob with the token. This is no attack: it shows what as many valid calls cost others."""
    await attacker.flood([_GET_JOB], attacker.authorized, concurrent=64)


async def busy_loop(_attacker: Attacker) -> None:
    """Use a processor without calling the server."""
    while True:
        sum(range(10_000))
        await asyncio.sleep(0)


async def silent_connections(attacker: Attacker) -> None:
    """Hold 1,000 connections that send nothing."""
    host, port = attacker.target.address.split(":")

    async def connect(_number: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            attacker.statuses["connected"] += 1
            await reader.read()
            attacker.statuses["closed by the server"] += 1
            writer.close()
        except ConnectionError:
            attacker.statuses["reset by the server"] += 1

    await attacker.repeat(1000, connect)


async def held_uploads(attacker: Attacker) -> None:
    """Hold 1,100 uploads that send only their header."""
    channels = [attacker.channel() for _ in range(11)]

    async def hold(number: int) -> None:
        async def requests() -> AsyncIterator[bytes]:
            yield _header(np.full(10, float(number)))
            await forever()

        await attacker.upload(channels[number % 11], requests())

    await attacker.repeat(1100, hold)


async def large_jobs_without_token(attacker: Attacker) -> None:
    """Send 34 MiB of empty layers without the token."""
    await attacker.flood([(f"{TRAINING}/CreateJob", _EMPTY_LAYERS)], concurrent=4)


async def large_jobs(attacker: Attacker) -> None:
    """Send 34 MiB of empty layers."""
    await attacker.flood([(f"{TRAINING}/CreateJob", _EMPTY_LAYERS)], attacker.authorized, concurrent=4)


async def long_watch_names(attacker: Attacker) -> None:
    """Watch the health of services whose names have 1 MiB, without the token."""
    request = HealthCheckRequest(service="a" * (1 << 20)).SerializeToString()
    await attacker.flood([(f"{_HEALTH}/Watch", request)], concurrent=200)


async def health_watches(attacker: Attacker) -> None:
    """Hold 1,000 health watches without the token."""
    channels = [attacker.channel() for _ in range(10)]

    async def watch(number: int) -> None:
        with attacker.counted():
            async for _ in channels[number % 10].unary_stream(f"{_HEALTH}/Watch")(b""):
                pass

    await attacker.repeat(1000, watch)


async def long_shapes(attacker: Attacker) -> None:
    """Send tensors with a million sizes."""
    requests = [
        (f"{TENSORS}/FindMissingTensors", b"\x0a\xc4\x84\x3d" + _SHAPE),
        (f"{MODELS}/Predict", b"\x12\xc4\x84\x3d" + _SHAPE),
    ]
    await attacker.flood(requests, attacker.authorized)


async def spaces(attacker: Attacker) -> None:
    """Send a filter that consists of 40 KB of spaces."""
    request = ListJobsRequest(filter=" " * 40_000).SerializeToString()
    await attacker.flood([(f"{TRAINING}/ListJobs", request)], attacker.authorized)


async def unknown_fields(attacker: Attacker) -> None:
    """Send 500,000 unknown fields."""
    fields = 500_000 * b"\xa0\x06\x01"
    requests = [(f"{TRAINING}/{method}", fields) for method in ("CreateJob", "GetJob")]
    await attacker.flood(requests, attacker.authorized)


async def requests_below_the_limits(attacker: Attacker) -> None:
    """Send requests that are almost as long as the server allows, and have almost as many fields."""
    conditions = " AND ".join(f'labels.team{number} = "x"' for number in range(20))
    requests: list[tuple[str, Message]] = [
        ("ListJobs", ListJobsRequest(filter=conditions, page_size=1000)),
        ("CreateJob", CreateJobRequest(job=Job(spec=JobSpec(model=ModelSpec(layers=7900 * [Layer()]))))),
        ("CreateJob", CreateJobRequest(job=Job(name="a" * 250_000))),
        ("FindMissingTensors", FindMissingTensorsRequest(tensors=990 * [TensorRef(shape=6 * [1], sha256="a" * 64)])),
    ]
    encoded = [
        (f"{TENSORS if method == 'FindMissingTensors' else TRAINING}/{method}", request.SerializeToString())
        for method, request in requests
    ]
    await attacker.flood(encoded, attacker.authorized)


async def amplifying_predictions(attacker: Attacker) -> None:
    """Send 244 KiB of inputs whose outputs would have 240 MiB."""
    await attacker.flood([(f"{MODELS}/Predict", _wide_inputs(62_500))], attacker.authorized)


async def large_predictions(attacker: Attacker) -> None:
    """Request the largest outputs that the server allows, 8 MiB each."""
    await attacker.flood([(f"{MODELS}/Predict", _wide_inputs(2000))], attacker.authorized)


async def job_larger_than_memory(attacker: Attacker) -> None:
    """Create a job with 966 million float64 parameters."""
    job = await attacker.job(attacker.channel())
    job.spec.ClearField("initial_weights")
    del job.spec.model.layers[:]
    job.spec.model.layers.extend(Layer(linear=Linear(out_features=width)) for width in (14_000_000, 5))
    job.spec.dtype = DataType.DATA_TYPE_FLOAT64
    await attacker.flood([_creation(job)], attacker.authorized)


async def job_with_too_many_epochs(attacker: Attacker) -> None:
    """Create a job with 2^31 - 1 epochs."""
    job = await attacker.job(attacker.channel())
    job.spec.epochs = 2**31 - 1
    await attacker.flood([_creation(job)], attacker.authorized)


async def uploads_beyond_the_quota(attacker: Attacker) -> None:
    """Upload random tensors of 16 MiB until the quota is full, and after that."""
    channels = [attacker.channel() for _ in range(4)]
    rng = np.random.default_rng(0)

    async def upload(number: int) -> None:
        async def requests() -> AsyncIterator[bytes]:
            yield _header(array)
            for start in range(0, array.nbytes, _CHUNK_BYTES):
                yield _chunk(array[start : start + _CHUNK_BYTES].tobytes())

        array = rng.integers(0, 256, 4 * _CHUNK_BYTES, np.uint8)
        await attacker.upload(channels[number], requests())

    await attacker.repeat(4, upload)


async def one_byte_bodies(attacker: Attacker) -> None:
    """Send invalid bodies of one byte without the token, as fast as possible."""
    paths = (f"{TRAINING}/CreateJob", f"{MODELS}/Predict", f"{TENSORS}/UploadTensor", f"{_HEALTH}/Check")
    await attacker.flood([(path, b"\xff") for path in paths], concurrent=64)


async def filters_and_page_tokens(attacker: Attacker) -> None:
    """Send filters and page tokens that are too long or out of range."""
    requests = [
        ListJobsRequest(filter="a" * 60_000),
        ListJobsRequest(filter=" AND ".join(1_100 * ["a=b"])),
        ListJobsRequest(filter='name = "a\0b"'),
        *(ListJobsRequest(page_token=text) for text in (str(2**63), "-1", "a" * 60_000, "MTpmZmZmZmZmZg==")),
    ]
    encoded = [(f"{TRAINING}/ListJobs", request.SerializeToString()) for request in requests]
    await attacker.flood(encoded, attacker.authorized)


async def empty_chunks(attacker: Attacker) -> None:
    """Hold an upload, and send endless empty chunks in others of the same tensor."""
    await _endless_chunks(attacker, b"")


async def one_byte_chunks(attacker: Attacker) -> None:
    """Hold an upload, and send others of the same tensor in chunks of one byte."""
    await _endless_chunks(attacker, b"\0")


async def unread_downloads(attacker: Attacker) -> None:
    """Start 64 downloads of a large model, each on its own connection, and read only the header."""

    async def download(number: int) -> None:
        async with attacker.channel() as channel:
            request = DownloadModelRequest(name=LARGE_MODEL, format=1 + number % 2).SerializeToString()
            call = channel.unary_stream(f"{MODELS}/DownloadModel")(request, metadata=attacker.authorized)
            with attacker.counted():
                await call.read()
                attacker.statuses["read the header"] += 1
                await call.code()

    await attacker.repeat(64, download)


async def cancelled_jobs(attacker: Attacker) -> None:
    """Create jobs, and cancel each three times at once after a short random time."""
    channel = attacker.channel()
    job = await attacker.job(channel)
    job.spec.epochs = 1000
    path, request = _creation(job)
    rng = random.Random(0)

    async def call(method: str, encoded: bytes) -> bytes | None:
        found: bytes | None = await attacker.outcome(
            channel.unary_unary(f"{TRAINING}/{method}")(encoded, metadata=attacker.authorized)
        )
        return found

    async def create_and_cancel(_number: int) -> None:
        created = await attacker.outcome(channel.unary_unary(path)(request, metadata=attacker.authorized))
        if created is None:
            return
        name = Job.FromString(created).name
        await asyncio.sleep(rng.uniform(0, 0.1))
        cancellation = CancelJobRequest(name=name).SerializeToString()
        await asyncio.gather(*(call("CancelJob", cancellation) for _ in range(3)))
        await call("DeleteJob", DeleteJobRequest(name=name).SerializeToString())

    await attacker.repeat(8, create_and_cancel)


async def two_tokens(attacker: Attacker) -> None:
    """Send the token twice."""
    await attacker.flood([_GET_JOB], [*attacker.authorized, *attacker.authorized], concurrent=64)


async def compressed_bombs(attacker: Attacker) -> None:
    """Send compressed requests that become 9 MiB."""
    requests = [(path, bytes(9 << 20)) for path in (f"{TRAINING}/GetJob", f"{_HEALTH}/Check")]
    await attacker.flood(requests, attacker.authorized, compression=grpc.Compression.Gzip)


async def reflection_streams(attacker: Attacker) -> None:
    """Read descriptors through 100 reflection streams without the token, as fast as possible."""
    channels = [attacker.channel() for _ in range(10)]
    request = ServerReflectionRequest(file_containing_symbol="gradwire.v1.TrainingService").SerializeToString()

    async def reflect(number: int) -> None:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

        async def requests() -> AsyncIterator[bytes]:
            while True:
                yield request

        with attacker.counted():
            async for _ in channels[number % 10].stream_stream(method)(requests()):
                attacker.statuses["responses"] += 1

    await attacker.repeat(100, reflect)


async def unread_responses(attacker: Attacker) -> None:
    """Make 210 Predict calls with large outputs and 6,000 GetJob calls, and accept no response."""
    prediction = PredictRequest.FromString(_wide_inputs(2000))
    for client in [await _stalled(attacker) for _ in range(30)]:
        for _ in range(7):
            client.call(f"{MODELS}/Predict", prediction)
        for _ in range(200):
            client.call(f"{TRAINING}/GetJob", GetJobRequest(name=RUNNING_JOB))
        attacker.statuses["calls"] += 207
    await forever()


async def unread_watches(attacker: Attacker) -> None:
    """Watch the job that runs through 1,000 streams, and accept no event."""
    for client in [await _stalled(attacker) for _ in range(20)]:
        for _ in range(50):
            client.call(f"{TRAINING}/WatchJob", WatchJobRequest(name=RUNNING_JOB))
        attacker.statuses["streams"] += 50
    await forever()


async def _endless_chunks(attacker: Attacker, chunk: bytes) -> None:
    channels = [attacker.channel() for _ in range(4)]
    array = np.zeros(10 << 20, np.uint8)
    header, encoded = _header(array), _chunk(chunk)

    async def upload(number: int) -> None:
        async def requests() -> AsyncIterator[bytes]:
            yield header
            if number == 0:
                await forever()
            while True:
                yield encoded

        await attacker.upload(channels[number % 4], requests())

    await attacker.repeat(32, upload)


async def _stalled(attacker: Attacker) -> StalledClient:
    return await StalledClient.connect(attacker.target.address, dict(attacker.authorized))


def _header(array: np.ndarray) -> bytes:
    return UploadTensorRequest(header=UploadHeader(tensor=tensor_ref(array))).SerializeToString()


def _chunk(data: bytes) -> bytes:
    return UploadTensorRequest(chunk=data).SerializeToString()


def _wide_inputs(rows: int) -> bytes:
    return PredictRequest(name=WIDE_MODEL, inputs=to_tensor(np.ones((rows, 1), np.float32))).SerializeToString()


def _creation(job: Job) -> tuple[str, bytes]:
    return f"{TRAINING}/CreateJob", CreateJobRequest(job=Job(spec=job.spec)).SerializeToString()


BASELINES = [
    Attack("baseline: no attack", lambda _attacker: forever(), processes=0),
    Attack("baseline: busy processors, no calls", busy_loop, processes=os.cpu_count() or 1),
    Attack("baseline: valid GetJob calls", valid_calls),
]
GRPC_ATTACKS = [
    Attack("1 silent connections, 1,000", silent_connections),
    Attack("1 held uploads, 1,100", held_uploads),
    Attack("2 CreateJob of 34 MiB, no token", large_jobs_without_token, refused=True),
    Attack("2 CreateJob of 34 MiB", large_jobs, refused=True),
    Attack("2 Health.Watch, names of 1 MiB", long_watch_names, refused=True),
    Attack("2 Health.Watch, 1,000 streams", health_watches),
    Attack("3 shape with a million sizes", long_shapes, refused=True),
    Attack("3 filter of 40 KB of spaces", spaces, refused=True),
    Attack("3 500,000 unknown fields", unknown_fields, refused=True),
    Attack("3 requests just below the limits", requests_below_the_limits),
    Attack("4 amplifying Predict", amplifying_predictions, refused=True),
    Attack("4 Predict, outputs of 8 MB", large_predictions),
    Attack("5 job larger than memory", job_larger_than_memory, refused=True),
    Attack("6 job of 2^31-1 epochs", job_with_too_many_epochs, refused=True),
    Attack("7 uploads that fill the quota", uploads_beyond_the_quota),
    Attack("8 bodies of one byte, no token", one_byte_bodies, refused=True),
    Attack("13 page tokens and filters", filters_and_page_tokens, refused=True),
    Attack("14 held upload, empty chunks", empty_chunks, refused=True),
    Attack("14 held upload, chunks of a byte", one_byte_chunks, refused=True),
    Attack("15 downloads of a header, 64", unread_downloads),
    Attack("16 storm of cancels", cancelled_jobs),
    Attack("18 two tokens", two_tokens, refused=True),
    Attack("compressed bombs", compressed_bombs, refused=True),
    Attack("reflection streams, no token", reflection_streams),
    Attack("unread responses, 6,210", unread_responses),
    Attack("unread WatchJob, 1,000", unread_watches),
]
