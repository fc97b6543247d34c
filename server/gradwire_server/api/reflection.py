"""Server reflection (v1 and v1alpha), which lets generic clients such as grpcurl and ghz read the protocol."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

# The messages of v1 and v1alpha have the same wire format, and grpcio-reflection implements v1alpha.
_SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


class _PoolWithMethods:
    """The descriptors of this process. Unlike protobuf's own pool, it can also find methods by name."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """Return the file that defines a symbol. Raises KeyError if the symbol is unknown."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service_name, _, method_name = symbol.rpartition(".")
            service = self._pool.FindServiceByName(service_name)
            if method_name not in service.methods_by_name:
                raise
            return service.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def add_reflection_to_server(service_names: Sequence[str], server: grpc.aio.Server) -> None:
    """Serve the descriptors of the named services, including all messages that they use."""
    servicer = reflection.aio.ReflectionServicer([*service_names, *_SERVICES], pool=_PoolWithMethods())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in _SERVICES:
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((handlers,))
