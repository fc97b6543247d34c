"""Sends random calls to a server, while a well-behaved client calls GetJob, and reports what the server did."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import psutil
from fuzz.random_calls import Call, Requests
from google.protobuf.message import Message
from innocent_client import GET_JOB, InnocentClient
from process_memory import peak_mb

import gradwire as gw
from gradwire_engine.spec.tensors import tensor_ref, to_tensor
from gradwire_proto.v1.model_service_pb2 import DownloadModelRequest, GetModelRequest, PredictRequest
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsRequest, UploadHeader, UploadTensorRequest
from gradwire_proto.v1.training_service_pb2 import (
    CreateJobRequest,
    GetJobRequest,
    Job,
    ListJobsRequest,
    WatchJobRequest,
)

_CONCURRENT = 16
_DEADLINE_SECONDS = 5.0
# The client leaves a stream after this many responses, or if it sends none for a while.
_MAX_RESPONSES = 20
_CANCEL_EVERY = 200
# The limits that a report must not exceed.
_MAX_INNOCENT_SECONDS = 1.0
_MAX_GROWTH_MB = 150
_MAX_NEW_DESCRIPTORS = 32
_DEFECTS = ("INTERNAL", "UNKNOWN")
# The client's error if the server ends a stream before the client has sent everything:
# https://github.com/grpc/grpc/issues/36066
_LOST_STATUS = "Internal error from Core"
_ARITY = {False: "unary", True: "stream"}


@dataclass
class Report:
    """The behavior of a server during the calls.

    Attributes:
        statuses: The number of calls that ended with each status.
        defects: The calls that ended with INTERNAL or UNKNOWN, with the server's error messages.
        innocent_seconds: The duration of each call of the well-behaved client.
        peak_mb: The server's peak memory.
        growth_mb: The growth of the server's memory after the first tenth of the calls.
        new_descriptors: The number of file descriptors that the server opened in the same period and did not close.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    innocent_seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    growth_mb: float = 0.0
    new_descriptors: int = 0

    def problems(self) -> list[str]:
        """Return a description of each defect of the server, or an empty list if there is none."""
        found = self.defects[:20]
        slowest = max(self.innocent_seconds, default=float("inf"))
        if slowest > _MAX_INNOCENT_SECONDS:
            found.append(f"a GetJob beside the random calls took {slowest:.2f} s")
        if self.growth_mb > _MAX_GROWTH_MB:
            found.append(f"the server's memory grew by {self.growth_mb:.0f} MB")
        if self.new_descriptors > _MAX_NEW_DESCRIPTORS:
            found.append(f"the server has {self.new_descriptors} more file descriptors than before")
        return found

    def percentile(self, share: float) -> float:
        """Return the time in ms within which this share of the well-behaved client's calls ended."""
        return float(np.percentile(self.innocent_seconds, 100 * share)) * 1000


def fuzz(address: str, token: str | None, pid: int, *, calls: int, seed: int) -> Report:
    """Send random calls to a server.

    Args:
        address: Its "host:port".
        token: The server's token, if it has one.
        pid: The id of the server's process.
        calls: The number of calls.
        seed: The seed of the calls. The results also depend on the timing of the calls.
    """
    requests = Requests(random.Random(seed), *_innocent_job(address, token))
    return asyncio.run(_Fuzzer(address, token, psutil.Process(pid), requests, random.Random(seed + 1)).run(calls))


def _innocent_job(address: str, token: str | None) -> tuple[dict[str, list[Message]], list[str]]:
    """Train a job that the random calls can find. Returns valid requests, keyed by type name, and words."""
    X = np.random.default_rng(0).random((20, 4)).astype(np.float32)
    y = np.arange(20) % 3
    with gw.Client(address, token=token) as client:
        gw.seed(0)
        model = gw.Sequential(gw.Linear(4, 8), gw.ReLU(), gw.Linear(8, 3))
        with contextlib.suppress(gw.NotFoundError):
            client.jobs.get("innocent")
            client.jobs.delete("innocent")
        with contextlib.suppress(gw.NotFoundError):
            client.models.delete("innocent")
        options = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model, lr=0.1), "epochs": 2}
        client.jobs.submit(model, (X, y), **options, name="innocent").result()
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(GET_JOB, response_deserializer=Job.FromString)
        job = call(GetJobRequest(name="jobs/innocent").SerializeToString(), metadata=metadata)
    inputs = tensor_ref(X)
    valid: list[Message] = [
        CreateJobRequest(job=Job(spec=job.spec, labels={"team": "vision"})),
        CreateJobRequest(job=Job(spec=job.spec, continue_job="jobs/innocent"), validate_only=True),
        CreateJobRequest(job=Job(spec=job.spec, initial_model="models/innocent"), request_id="again"),
        ListJobsRequest(page_size=5, filter='name : "job" AND labels.team = "vision"'),
        WatchJobRequest(name="jobs/innocent", after_sequence=1),
        FindMissingTensorsRequest(tensors=[inputs, job.spec.train.targets]),
        UploadTensorRequest(header=UploadHeader(tensor=inputs)),
        UploadTensorRequest(header=UploadHeader(tensor=tensor_ref(X + 1))),
        UploadTensorRequest(chunk=X.tobytes()),
        PredictRequest(name="models/innocent", inputs=to_tensor(X)),
        DownloadModelRequest(name="models/innocent", format="MODEL_FORMAT_ONNX", offset=7),
        GetModelRequest(name="models/innocent"),
        GetJobRequest(name="jobs/innocent"),
    ]
    by_type: dict[str, list[Message]] = {}
    for message in valid:
        by_type.setdefault(message.DESCRIPTOR.full_name, []).append(message)
    return by_type, [inputs.sha256, job.spec.train.targets.sha256]


class _Fuzzer:
    def __init__(
        self, address: str, token: str | None, process: psutil.Process, requests: Requests, rng: random.Random
    ) -> None:
        self._address = address
        self._process = process
        self._requests = requests
        self._rng = rng
        self._token = (("authorization", f"Bearer {token}"),) if token else ()
        self._report = Report()
        self._left = 0

    async def run(self, calls: int) -> Report:
        """Send the calls while the well-behaved client runs."""
        self._left = calls
        with InnocentClient(self._address, self._token, "jobs/nobody", expected=grpc.StatusCode.NOT_FOUND) as innocent:
            before = await self._senders(until=calls * 9 // 10)
            after = await self._senders(until=0)
        self._report.innocent_seconds = innocent.seconds
        self._report.defects += innocent.failures
        await self._cancel_jobs()
        self._report.growth_mb = after[0] - before[0]
        self._report.new_descriptors = after[1] - before[1]
        return self._report

    async def _senders(self, until: int) -> tuple[float, int]:
        """Send calls until `until` calls remain. Returns the server's memory in MB and its number of descriptors."""
        await asyncio.gather(*(self._send_calls(until) for _ in range(_CONCURRENT)))
        memory = self._process.memory_info().rss / 1e6
        self._report.peak_mb = max(self._report.peak_mb, peak_mb(self._process.pid))
        return memory, self._process.num_fds()

    async def _send_calls(self, until: int) -> None:
        async with self._channel() as channel:
            while self._left > until:
                self._left -= 1
                if self._left % _CANCEL_EVERY == 0:
                    await self._cancel_jobs()
                await self._send(channel, self._requests.call())

    async def _send(self, channel: grpc.aio.Channel, call: Call) -> None:
        wrong = (("authorization", "Bearer wrong"),)
        metadata = self._rng.choices([self._token, (), wrong, self._token + self._token], [20, 1, 1, 1])[0]
        compression = self._rng.choices([None, grpc.Compression.Gzip], [30, 1])[0]
        options = {"metadata": metadata, "timeout": _DEADLINE_SECONDS, "compression": compression}
        try:
            if call.method.server_streaming:
                await _read_some(_open(channel, call, options))
            else:
                await _open(channel, call, options)
            status = "OK"
        except asyncio.CancelledError:
            status = "left by the client"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
            if error.details() == _LOST_STATUS and call.method.client_streaming:
                status = "lost by the client"
            if status == "DEADLINE_EXCEEDED" and not (call.method.server_streaming or call.method.client_streaming):
                status = f"DEADLINE_EXCEEDED by {call.method.name} ({call.kind})"
            if status in _DEFECTS:
                sent = [request[:200] for request in call.requests[:3]]
                self._report.defects.append(f"{call.path} ({call.kind}): {status}: {error.details()}: {sent!r}")
        self._report.statuses[status] += 1

    async def _cancel_jobs(self) -> None:
        """Cancel the jobs that the random calls have created, so that they do not use the processor."""

        def cancel() -> None:
            token = self._token[0][1].removeprefix("Bearer ") if self._token else None
            with gw.Client(self._address, token=token) as client:
                for job in client.jobs.list():
                    if job.info.state in ("QUEUED", "STARTING", "RUNNING", "PAUSED"):
                        job.cancel()

        with contextlib.suppress(gw.GradwireError):
            await asyncio.to_thread(cancel)

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            self._address,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )


def _open(channel: grpc.aio.Channel, call: Call, options: dict[str, Any]) -> Any:
    """Start a call."""
    kind = f"{_ARITY[call.method.client_streaming]}_{_ARITY[call.method.server_streaming]}"
    request: Any = iter(call.requests) if call.method.client_streaming else call.requests[0]
    return getattr(channel, kind)(call.path)(request, **options)


async def _read_some(responses: Any) -> None:
    count = 0
    async for _ in responses:
        count += 1
        if count == _MAX_RESPONSES:
            responses.cancel()
