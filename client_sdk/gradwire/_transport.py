"""The connection to a server, with one channel, deadlines and retries. No other module of the SDK calls gRPC."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from gradwire._access import Access, checked_address
from gradwire._exceptions import GradwireError, InvalidArgumentError, UnavailableError
from gradwire._numbers import checked_whole
from gradwire._retry import retry_delay
from gradwire._status import error_from_rpc
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceStub
from gradwire_proto.v1.tensor_service_pb2_grpc import TensorServiceStub
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub

if TYPE_CHECKING:
    from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceAsyncStub
    from gradwire_proto.v1.tensor_service_pb2_grpc import TensorServiceAsyncStub
    from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

Request = TypeVar("Request")
Response = TypeVar("Response")

DEFAULT_TIMEOUT = 60.0
DEFAULT_MAX_RETRIES = 6

# The time that the first call waits for the server. It is long enough for a slow network, and short enough to report a
# wrong address quickly.
_CONNECT_SECONDS = 3.0

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Detect dead connections while a watch waits for events.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


class Transport:
    """A channel to one server. The first call opens the channel, in the event loop of that call.

    Args:
        address: The server's "host:port". Default: GRADWIRE_ADDRESS.
        access: The token and the TLS settings.
        timeout: The maximum time for a call without a stream, in seconds, or None for no limit.
        max_retries: The number of times to retry a call while the server is unavailable.
        sleep: A function that waits for a number of seconds. Tests replace it.
    """

    def __init__(
        self,
        address: str | None,
        access: Access,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if checked_seconds(timeout, "timeout") is not None and not timeout > 0:  # type: ignore[operator]  # not None
            raise InvalidArgumentError(f"timeout: must be a number of seconds greater than 0, or None, got {timeout!r}")
        self.address = checked_address(address)
        self.timeout = timeout
        self.max_retries = checked_whole("max_retries", max_retries, 0)
        self.sleep = sleep
        self._credentials = access.credentials()
        self._metadata = access.metadata(self.address, encrypted=self._credentials is not None)
        self._channel: grpc.aio.Channel | None = None
        self._connected = False

    @property
    def training(self) -> TrainingServiceAsyncStub:
        """The stub for the TrainingService."""
        return TrainingServiceStub(self._open())

    @property
    def tensors(self) -> TensorServiceAsyncStub:
        """The stub for the TensorService."""
        return TensorServiceStub(self._open())

    @property
    def models(self) -> ModelServiceAsyncStub:
        """The stub for the ModelService."""
        return ModelServiceStub(self._open())

    async def health(self) -> str:
        """Return the standard health service's response for the whole server, for example "SERVING"."""
        from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # noqa: PLC0415  (rarely needed)
        from grpc_health.v1.health_pb2_grpc import HealthStub  # noqa: PLC0415

        stub: Any = HealthStub(self._open())  # The package contains types only for the server side.
        response = await self.call(stub.Check, HealthCheckRequest())
        return str(HealthCheckResponse.ServingStatus.Name(response.status))

    async def call(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Make an idempotent call and retry it while the server is unavailable."""
        await self._connect()
        attempt = 0
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=self.timeout)
            except grpc.aio.AioRpcError as error:
                failure = error_from_rpc(error, self.address)
            await self.wait_before_retry(failure, attempt)
            attempt += 1

    async def send(
        self, method: grpc.aio.StreamUnaryMultiCallable[Request, Response], requests: AsyncIterator[Request]
    ) -> Response:
        """Make a call with a request stream, without retries, and return the response."""
        await self._connect()
        try:
            return await method(requests, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from None

    async def receive(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> AsyncIterator[Response]:
        """Make a call with a response stream, without retries, and yield the responses."""
        await self._connect()
        call = method(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.address) from None
        finally:
            call.cancel()

    async def wait_before_retry(self, error: GradwireError, attempt: int) -> None:
        """Wait until a failed call can be retried. Raise its error if retrying does not help or no retries are left."""
        delay = retry_delay(error, attempt)
        if delay is None or attempt >= self.max_retries:
            raise error from None
        await self.sleep(delay)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _connect(self) -> None:
        """Wait for the server before the first call, so that a wrong address is reported within seconds."""
        if self._connected:
            return
        try:
            async with asyncio.timeout(min(_CONNECT_SECONDS, self.timeout or _CONNECT_SECONDS)):
                await self._open().channel_ready()
        except TimeoutError:
            how = "with TLS" if self._credentials else "without TLS"
            raise UnavailableError(
                f"no gradwire server answers at {self.address} {how}. Start one with `gradwire serve`, set the address "
                "with at=... or GRADWIRE_ADDRESS, and TLS with tls=... or GRADWIRE_TLS."
            ) from None
        self._connected = True

    def _open(self) -> grpc.aio.Channel:
        refuse_after_fork()
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self.address, options=_OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(self.address, self._credentials, options=_OPTIONS)
            )
        return self._channel


def checked_seconds(seconds: float | None, name: str) -> float | None:
    """Return the value of an argument that is a number of seconds or None.

    Raises:
        InvalidArgumentError: It is something else.
    """
    if seconds is None or (isinstance(seconds, Real) and not isinstance(seconds, bool) and not math.isnan(seconds)):
        return seconds
    raise InvalidArgumentError(f"{name}: must be a number of seconds, or None, got {seconds!r}")


_processes_with_grpc: list[int] = []


def is_forked() -> bool:
    """Return whether this process was forked from a process that used gRPC. In such a process, gRPC does not work."""
    return bool(_processes_with_grpc) and _processes_with_grpc[0] != os.getpid()


def refuse_after_fork() -> None:
    """Record that this process uses gRPC.

    Raises:
        GradwireError: The process was forked from a process that used gRPC. All calls would wait forever.
    """
    if not _processes_with_grpc:
        _processes_with_grpc.append(os.getpid())
    if is_forked():
        raise GradwireError(
            "gradwire cannot connect from a process that was forked after its parent connected to a server. "
            'Start processes with multiprocessing.get_context("spawn"), or connect only in the child.'
        )
