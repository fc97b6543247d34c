"""The tools of an attack: calls, repetition, and a count of the statuses."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from gradwire_proto.v1.training_service_pb2 import GetJobRequest, Job

TRAINING = "/gradwire.v1.TrainingService"
TENSORS = "/gradwire.v1.TensorService"
MODELS = "/gradwire.v1.ModelService"
# The objects that run.py creates before the first attack: a job that runs, a model of 100 MB, and a model that computes
# 1,000 outputs from one input.
RUNNING_JOB, LARGE_MODEL, WIDE_MODEL = "jobs/running", "models/large", "models/wide"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Each channel has its own connection.
    ("grpc.use_local_subchannel_pool", 1),
]
_LOST_STATUS = "Internal error from Core"
_Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Target:
    """The server under attack.

    Attributes:
        address: Its "host:port" for gRPC.
        http: Its "host:port" for HTTP.
        token: Its token.
    """

    address: str
    http: str
    token: str


class Attacker:
    """A client that attacks a server.

    Attributes:
        target: The server.
        authorized: The metadata with the token.
        statuses: The number of calls or connections that ended with each status.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.authorized: _Metadata = (("authorization", f"Bearer {target.token}"),)
        self.statuses: Counter[str] = Counter()

    def channel(self) -> grpc.aio.Channel:
        """Return a channel with its own connection."""
        return grpc.aio.insecure_channel(self.target.address, _OPTIONS)

    async def repeat(self, concurrent: int, attack: Callable[[int], Awaitable[object]]) -> None:
        """Run `attack(number)` again and again in each of `concurrent` tasks, until the attack is cancelled."""

        async def run(number: int) -> None:
            while True:
                await attack(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(run(number) for number in range(concurrent)))

    async def flood(
        self,
        requests: Sequence[tuple[str, bytes]],
        metadata: _Metadata = (),
        *,
        concurrent: int = 16,
        compression: grpc.Compression | None = None,
    ) -> None:
        """Send encoded requests as fast as the server answers.

        Args:
            requests: The path of the method and the encoded request of each call, which are repeated in turn.
            metadata: The metadata of the calls.
            concurrent: The number of calls at a time.
            compression: The compression of the requests.
        """
        channels = [self.channel() for _ in range(4)]
        sent = 0

        async def send(number: int) -> None:
            nonlocal sent
            path, request = requests[sent % len(requests)]
            sent += 1
            call = channels[number % 4].unary_unary(path)(request, metadata=metadata, compression=compression)
            await self.outcome(call)

        await self.repeat(concurrent, send)

    async def outcome(self, call: Awaitable[Any]) -> Any:
        """Wait for a call, count its status, and return its response, or None if it failed."""
        with self.counted():
            return await call
        return None

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count the status of the call in the context."""
        try:
            yield
            self.statuses["OK"] += 1
        except grpc.aio.AioRpcError as error:
            # https://github.com/grpc/grpc/issues/36066: the server ended the stream before everything was sent.
            lost = error.details() == _LOST_STATUS
            self.statuses["ended by the server" if lost else error.code().name] += 1

    async def upload(self, channel: grpc.aio.Channel, requests: AsyncIterable[bytes]) -> None:
        """Send the encoded requests of an UploadTensor call."""
        await self.outcome(channel.stream_unary(f"{TENSORS}/UploadTensor")(requests, metadata=self.authorized))

    async def job(self, channel: grpc.aio.Channel) -> Job:
        """Return the job that runs."""
        call = channel.unary_unary(f"{TRAINING}/GetJob", response_deserializer=Job.FromString)
        found: Job = await call(GetJobRequest(name=RUNNING_JOB).SerializeToString(), metadata=self.authorized)
        return found


async def forever() -> None:
    """Wait until the attack is cancelled."""
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        name: Its name. If issue 13 has it in its list, the name starts with its number there.
        run: Attacks the server until it is cancelled.
        refused: Whether the server must refuse every call.
        processes: The number of processes that attack at the same time.
    """

    name: str
    run: Callable[[Attacker], Awaitable[None]]
    refused: bool = False
    processes: int = 1
