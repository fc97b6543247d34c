"""Reflection as generic clients use it: they ask for the file that defines a service, method or message."""

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse


def ask(server, version, **question):
    with grpc.insecure_channel(server.address) as channel:
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        (response,) = method(iter([ServerReflectionRequest(**question)]), timeout=60)
        return response


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    "symbol", ["gradwire.v1.TrainingService", "gradwire.v1.TrainingService.GetJob", "gradwire.v1.GetJobRequest"]
)
def test_the_files_of_services_methods_and_messages_are_found(server, version, symbol):
    response = ask(server, version, file_containing_symbol=symbol)
    files = [FileDescriptorProto.FromString(each) for each in response.file_descriptor_response.file_descriptor_proto]
    assert "gradwire/v1/training_service.proto" in [file.name for file in files]


@pytest.mark.parametrize("symbol", ["gradwire.v1.TrainingService.Nothing", "gradwire.v1.Nothing.GetJob", "nothing", ""])
def test_an_unknown_symbol_is_not_found(server, symbol):
    response = ask(server, "v1", file_containing_symbol=symbol)
    assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_all_services_are_listed(server):
    names = [service.name for service in ask(server, "v1", list_services="").list_services_response.service]
    assert {"gradwire.v1.TrainingService", "gradwire.v1.TensorService", "gradwire.v1.ModelService"} < set(names)
