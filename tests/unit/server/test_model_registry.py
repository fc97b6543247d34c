"""Models that the server runs, from a real database and a real blob store."""

import asyncio

import numpy as np
import pytest

from gradwire_engine import Linear, ReLU, Sequential
from gradwire_engine.spec.tensors import from_tensor, tensor_ref, to_tensor, wire_bytes
from gradwire_engine.spec.tracing import trace
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.principal import OPERATOR
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.store import model_queries


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_are_bit_identical_to_those_of_the_model_and_have_its_dtype(database, tmp_path, dtype):
    model = Sequential(Linear(4, 8, dtype=dtype), ReLU(), Linear(8, 3, dtype=dtype))
    traced = trace(model)
    weights = traced.given_weights()
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    reference = tensor_ref(weights)
    blobs.put(reference.sha256, wire_bytes(weights))
    stored = Model(name="models/a", spec=traced.spec, weights=reference)
    X = np.random.default_rng(0).standard_normal((5, 4))

    async def scenario():
        await database.write(lambda connection: model_queries.insert_model(connection, "a", stored))
        return await ModelRegistry(database, blobs, CheckpointStore(blobs)).predict(OPERATOR, "models/a", to_tensor(X))

    outputs = from_tensor(asyncio.run(scenario()))
    assert outputs.dtype == dtype
    assert np.array_equal(outputs, model(X))
