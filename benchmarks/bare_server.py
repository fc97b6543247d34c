"""A gRPC server with nothing but a read of a job and a forward pass, for comparison with the server of gradwire.

python -m benchmarks.bare_server DATABASE MODEL prints its address, and serves until it is stopped.
"""

import asyncio
import sqlite3
import sys
from collections.abc import Sequence

import grpc
import numpy as np

import gradwire as gw
from gradwire_engine.spec.tensors import from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import PredictRequest, PredictResponse
from gradwire_proto.v1.training_service_pb2 import GetJobRequest, Job


async def main(arguments: Sequence[str]) -> None:
    """Serve GetJob from a SQLite file and Predict with a model file."""
    path, model_file = arguments
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    W1, b1, W2, b2 = (parameter.data for parameter in gw.load_model(model_file).parameters())

    async def get_job(request: GetJobRequest, _context: object) -> Job:
        job_id = request.name.removeprefix("jobs/")
        (message,) = connection.execute("SELECT message FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        return Job.FromString(message)

    async def predict(request: PredictRequest, _context: object) -> PredictResponse:
        hidden = np.maximum(from_tensor(request.inputs) @ W1.T + b1, 0)
        return PredictResponse(outputs=to_tensor(hidden @ W2.T + b2))

    def method(function: object, request: type[GetJobRequest | PredictRequest]) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            function,
            request_deserializer=request.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )

    server = grpc.aio.server()
    for service, methods in (
        ("gradwire.v1.TrainingService", {"GetJob": method(get_job, GetJobRequest)}),
        ("gradwire.v1.ModelService", {"Predict": method(predict, PredictRequest)}),
    ):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
