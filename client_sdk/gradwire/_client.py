"""The client of a server. AsyncClient implements it; Client is the blocking form."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from gradwire._access import Access
from gradwire._blocking import Portal, blocking
from gradwire._jobs import AsyncJobs, Jobs
from gradwire._models import AsyncModels, Models
from gradwire._tensors import AsyncTensors, Tensors
from gradwire._transport import DEFAULT_MAX_RETRIES, DEFAULT_TIMEOUT, Transport
from gradwire._workers import WorkersInfo, workers_info
from gradwire_proto.v1.training_service_pb2 import ListWorkersRequest


class AsyncClient:
    """An asynchronous client of a gradwire server.

    Args:
        address: The server's "host:port". Default: the environment variable GRADWIRE_ADDRESS.
        token: The server's token. Default: GRADWIRE_TOKEN, or the contents of the file GRADWIRE_TOKEN_FILE.
        tls: True to use TLS and trust the system's certificate authorities, or the path of a PEM file of trusted
            certificates. Default: GRADWIRE_TLS, which is "1" or the path of a file.
        insecure: Whether to allow sending the token to another machine without TLS. Default: GRADWIRE_INSECURE.
        timeout: The maximum time for a call, in seconds, or None for no limit. Uploads, downloads and watches have
            no limit.
        max_retries: The number of times to retry a call while the server is unavailable, with increasing delays or with
            the delay that the server requests.

    Raises:
        InvalidArgumentError: The address is missing or malformed, or the token would be sent without TLS.

    Example:
        async with gw.AsyncClient("localhost:50051") as client:
            job = await client.jobs.submit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=5)
            history = await job.result()
            outputs = await client.models.predict(job.name, X)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | Path | None = None,
        insecure: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
    ) -> None:
        access = Access(token, tls, insecure)
        self._transport = Transport(address, access, timeout=timeout, max_retries=max_retries)
        self._jobs = AsyncJobs(self._transport)
        self._models = AsyncModels(self._transport)
        self._tensors = AsyncTensors(self._transport)

    def __repr__(self) -> str:
        return f"AsyncClient({self.address!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """The server's address."""
        return self._transport.address

    @property
    def jobs(self) -> AsyncJobs:
        """Training jobs: submit, get, list and delete."""
        return self._jobs

    @property
    def models(self) -> AsyncModels:
        """Trained models: get, list, load, predict, download and delete."""
        return self._models

    @property
    def tensors(self) -> AsyncTensors:
        """Uploaded arrays: upload, missing, list and delete."""
        return self._tensors

    async def health(self) -> str:
        """Return the server's health: "SERVING" if it accepts jobs."""
        return await self._transport.health()

    async def workers(self) -> WorkersInfo:
        """Return the workers, the jobs that they run, and the queue with the reasons why its jobs wait."""
        return workers_info(await self._transport.call(self._transport.training.ListWorkers, ListWorkersRequest()))

    async def close(self) -> None:
        """Close the connection. Jobs continue."""
        await self._transport.close()


class Client:
    """A client of a gradwire server.

    Args:
        address: The server's "host:port". Default: the environment variable GRADWIRE_ADDRESS.
        token: The server's token. Default: GRADWIRE_TOKEN, or the contents of the file GRADWIRE_TOKEN_FILE.
        tls: True to use TLS and trust the system's certificate authorities, or the path of a PEM file of trusted
            certificates. Default: GRADWIRE_TLS, which is "1" or the path of a file.
        insecure: Whether to allow sending the token to another machine without TLS. Default: GRADWIRE_INSECURE.
        timeout: The maximum time for a call, in seconds, or None for no limit. Uploads, downloads and watches have
            no limit.
        max_retries: The number of times to retry a call while the server is unavailable, with increasing delays or with
            the delay that the server requests.

    Raises:
        InvalidArgumentError: The address is missing or malformed, or the token would be sent without TLS.

    Example:
        with gw.Client("localhost:50051") as client:
            job = client.jobs.submit(model, (X, y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=5)
            history = job.result()
            outputs = client.models.predict(job.name, X)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | None = None,
        tls: bool | str | Path | None = None,
        insecure: bool | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_MAX_RETRIES,
    ) -> None:
        self._async = AsyncClient(
            address, token=token, tls=tls, insecure=insecure, timeout=timeout, max_retries=max_retries
        )
        self._portal = Portal()
        self._jobs = Jobs(self._async.jobs, self._portal)
        self._models = Models(self._async.models, self._portal)
        self._tensors = Tensors(self._async.tensors, self._portal)

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The server's address."""
        return self._async.address

    @property
    def jobs(self) -> Jobs:
        """Training jobs: submit, get, list and delete."""
        return self._jobs

    @property
    def models(self) -> Models:
        """Trained models: get, list, load, predict, download and delete."""
        return self._models

    @property
    def tensors(self) -> Tensors:
        """Uploaded arrays: upload, missing, list and delete."""
        return self._tensors

    health = blocking(AsyncClient.health)
    workers = blocking(AsyncClient.workers)

    def close(self) -> None:
        """Close the connection. Jobs continue."""
        if not self._portal.closed:
            self._portal.close(self._async.close())
