"""A well-behaved client that calls GetJob repeatedly while others attack the server, and measures each call."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc

from gradwire_proto.v1.training_service_pb2 import GetJobRequest, Job

GET_JOB = "/gradwire.v1.TrainingService/GetJob"
_PAUSE_SECONDS = 0.02
_TIMEOUT_SECONDS = 30.0


class InnocentClient:
    """Calls GetJob within a context, in a thread of its own.

    Args:
        address: The server's "host:port".
        metadata: The metadata of the calls.
        job: The name of the job.
        expected: The status with which each call must end.

    Attributes:
        seconds: The duration of each call, in seconds.
        failures: A description of each call that ended with another status.
        epochs: The time of each answer, in seconds, and the last epoch of the job in it.
    """

    def __init__(
        self,
        address: str,
        metadata: Sequence[tuple[str, str]],
        job: str,
        expected: grpc.StatusCode = grpc.StatusCode.OK,
    ) -> None:
        self._address = address
        self._metadata = metadata
        self._request = GetJobRequest(name=job).SerializeToString()
        self._expected = expected
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._call_repeatedly)
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.epochs: list[tuple[float, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_call(self) -> None:
        """Wait until the call in progress has ended."""
        count = len(self.seconds)
        while len(self.seconds) == count and self._thread.is_alive():
            time.sleep(_PAUSE_SECONDS / 2)

    def _call_repeatedly(self) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            call = channel.unary_unary(GET_JOB, response_deserializer=Job.FromString)
            while not self._stopped.wait(_PAUSE_SECONDS):
                began = time.monotonic()
                status, details = grpc.StatusCode.OK, ""
                try:
                    job = call(self._request, metadata=self._metadata, timeout=_TIMEOUT_SECONDS)
                    self.epochs.append((time.monotonic(), job.last_epoch.epoch))
                except grpc.RpcError as error:
                    status, details = error.code(), error.details()
                self.seconds.append(time.monotonic() - began)
                if status is not self._expected:
                    self.failures.append(f"GetJob ended with {status.name}: {details}")
