"""The connection to a server: address, token, deadlines, retries. Nothing else in the SDK calls gRPC."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from gradwire._exceptions import InvalidArgumentError, UnavailableError, from_rpc_error, is_away
from gradwire_proto.v1.dataset_service_pb2_grpc import DatasetServiceStub
from gradwire_proto.v1.model_service_pb2_grpc import ModelServiceStub
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub

T = TypeVar("T")

# How long the first call waits for a server to be there.
_CONNECT_SECONDS = 3.0
# How long a call without a stream may take.
_CALL_SECONDS = 60.0
# Waits before a call is tried again that found the server away: long enough for one that is started again.
_BACKOFF_SECONDS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that has silently died is noticed while a watch waits for events.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


def resolve_address(at: str | None) -> str | None:
    """Return the address to use: what was given, else GRADWIRE_ADDRESS, else None."""
    return at or os.environ.get("GRADWIRE_ADDRESS") or None


@dataclass(frozen=True)
class Access:
    """How to reach a server beside its address; what is None comes from the environment.

    token: GRADWIRE_TOKEN, or what the file GRADWIRE_TOKEN_FILE holds. tls: True trusts the system's certificate
    authorities, a path the ones in that file (PEM); GRADWIRE_TLS, 1 or a path. insecure: let the token travel in the
    clear to another machine; GRADWIRE_INSECURE.
    """

    token: str | None = None
    tls: bool | str | Path | None = None
    insecure: bool | None = None


class Transport:
    """A channel that is opened by the first call, in the event loop of that call."""

    def __init__(self, address: str | None, access: Access) -> None:
        resolved = resolve_address(address)
        if resolved is None:
            raise InvalidArgumentError('no address: pass one, as Client("localhost:50051"), or set GRADWIRE_ADDRESS')
        self.address = resolved
        token = access.token or _token_of_the_environment()
        self._credentials = _credentials(os.environ.get("GRADWIRE_TLS", "") if access.tls is None else access.tls)
        insecure = _is_on(os.environ.get("GRADWIRE_INSECURE", "")) if access.insecure is None else access.insecure
        if token and self._credentials is None and not insecure and not _is_this_machine(resolved):
            raise InvalidArgumentError(
                f"refusing to send the token in the clear to {resolved}: use tls=True or tls=CA_FILE (GRADWIRE_TLS), "
                "or insecure=True (GRADWIRE_INSECURE=1) where the way there is safe"
            )
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: grpc.aio.Channel | None = None

    async def health(self) -> str:
        """Return what the standard health service says of the whole server: "SERVING", for instance."""
        await self.connect()
        stub: Any = HealthStub(self._open())
        response = await self.call(stub.Check, HealthCheckRequest())
        return HealthCheckResponse.ServingStatus.Name(response.status)

    @property
    def training(self) -> Any:
        """The TrainingService."""
        return TrainingServiceStub(self._open())

    @property
    def datasets(self) -> Any:
        """The DatasetService."""
        return DatasetServiceStub(self._open())

    @property
    def models(self) -> Any:
        """The ModelService."""
        return ModelServiceStub(self._open())

    async def connect(self) -> None:
        """Wait until the server is there; UnavailableError if it is not within a few seconds."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._open().channel_ready()
        except TimeoutError as error:
            how = "with TLS" if self._credentials else "without TLS"
            raise UnavailableError(
                f"no gradwire server answers at {self.address} {how}; is it running? Start one with `gradwire serve`, "
                "set the address with at=... or GRADWIRE_ADDRESS, and TLS with tls=... or GRADWIRE_TLS"
            ) from error

    async def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Make a call that may be repeated, and repeat it while the server is away for a moment."""
        for wait in (*_BACKOFF_SECONDS, None):
            try:
                return await method(request, metadata=self._metadata, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if wait is None or not is_away(error):
                    raise from_rpc_error(error, self.address) from error
                await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    async def send(self, method: Callable[..., Any], requests: AsyncIterator[Any] | Iterable[Any]) -> Any:
        """Stream requests, once, and return the response."""
        try:
            return await method(requests, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.address) from error

    async def receive(self, method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
        """Yield the responses to a request, once."""
        call = method(request, metadata=self._metadata)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = (
                grpc.aio.insecure_channel(self.address, options=_OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(self.address, self._credentials, options=_OPTIONS)
            )
        return self._channel


def _token_of_the_environment() -> str:
    token, file = os.environ.get("GRADWIRE_TOKEN", ""), os.environ.get("GRADWIRE_TOKEN_FILE", "")
    if token or not file:
        return token
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise InvalidArgumentError(f"GRADWIRE_TOKEN_FILE cannot be read: {error}") from error


def _credentials(tls: bool | str | Path) -> grpc.ChannelCredentials | None:
    """Return what a channel needs for TLS, or None where it is off."""
    if isinstance(tls, bool) or tls in ("", "0", "1"):
        return grpc.ssl_channel_credentials() if tls in (True, "1") else None
    try:
        return grpc.ssl_channel_credentials(Path(tls).read_bytes())
    except OSError as error:
        raise InvalidArgumentError(f"tls must be True or a file of certificates: {error}") from error


def _is_on(variable: str) -> bool:
    return variable.lower() in ("1", "true", "yes", "on")


def _is_this_machine(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]") or address
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
