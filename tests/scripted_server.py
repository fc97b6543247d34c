"""A server with responses that a test defines."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status

from gradwire_proto.v1 import model_service_pb2_grpc, tensor_service_pb2_grpc, training_service_pb2_grpc


def status(
    code: grpc.StatusCode,
    message: str = "",
    *,
    reason: str | None = None,
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    retry_after: float | None = None,
) -> Status:
    """Return a status with the same details that the service would send."""
    details: list[Any] = []
    if reason:
        details.append(ErrorInfo(domain="gradwire.dev", reason=reason, metadata=metadata))
    if violations:
        fields = [BadRequest.FieldViolation(field=name, description=text) for name, text in violations.items()]
        details.append(BadRequest(field_violations=fields))
    if retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(1000 * retry_after))
        details.append(RetryInfo(retry_delay=delay))
    made = Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)
    return made


def rpc_error(made: Status) -> grpc.aio.AioRpcError:
    """Return the error that gRPC raises in a client for a status."""
    code = next(code for code in grpc.StatusCode if code.value[0] == made.code)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", made.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, made.message)


class ScriptedServer:
    """Answers each call with the function that a test has set for the method."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        # Handlers look up the function at the time of the call, so that a test can set it later.
        for add in (
            training_service_pb2_grpc.add_TrainingServiceServicer_to_server,
            model_service_pb2_grpc.add_ModelServiceServicer_to_server,
            tensor_service_pb2_grpc.add_TensorServiceServicer_to_server,
        ):
            add(_Late(self), self._server)
        self.health = HealthServicer()
        add_HealthServicer_to_server(self.health, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop(None)

    def answer(self, method: str, function: Callable[[Any], Any]) -> None:
        """Set the function that answers a method. It takes the request, and returns a response or an error status.

        For a method with a response stream, the function yields the responses.
        """

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            self.requests.append(request)
            answer = function(request)
            if isinstance(answer, Status):
                context.abort_with_status(rpc_status.to_status(answer))
            return answer

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.requests.append(request)
            for answer in function(request):
                if isinstance(answer, Status):
                    context.abort_with_status(rpc_status.to_status(answer))
                yield answer

        setattr(self, method, stream if method in ("WatchJob", "DownloadModel") else unary)


class _Late:
    """Passes each call to the function that is set at that time. Without one, the method is not implemented."""

    def __init__(self, server: "ScriptedServer") -> None:
        self._server = server

    def __getattr__(self, method: str) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            function = getattr(self._server, method, None)
            if function is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} has no answer")
            return function(request, context)

        return call
