"""Predictions: their limits, and their effect on the server's memory."""

import asyncio
import threading
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from gradwire_engine.spec.resolve import network
from gradwire_engine.spec.tensors import tensor_ref, to_tensor, wire_bytes
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Layer, Linear, ModelSpec
from gradwire_proto.v1.tensor_pb2 import DataType, Tensor
from gradwire_server.errors import InvalidFieldsError, ServerBusyError
from gradwire_server.models import registry as registry_module
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.principal import OPERATOR
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.store import model_queries


@pytest.fixture
def models(database, tmp_path):
    """A registry, and a function that adds a model with the given widths to it."""
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")

    def add(*widths):
        layers = [Layer(linear=Linear(in_features=a, out_features=b)) for a, b in pairwise(widths)]
        spec = ModelSpec(layers=layers)
        weights = np.full(network(spec).size, 0.5, np.float32)
        reference = tensor_ref(weights)
        blobs.put(reference.sha256, wire_bytes(weights))
        name = f"w-{len(widths)}-{widths[1]}"
        model = Model(name=f"models/{name}", spec=spec, weights=reference)
        asyncio.run(database.write(lambda connection: model_queries.insert_model(connection, name, model)))
        return model.name

    return ModelRegistry(database, blobs, CheckpointStore(blobs)), add


def predict(models, name, inputs):
    return asyncio.run(models.predict(OPERATOR, name, inputs))


def test_more_rows_than_fit_are_refused_with_the_number_that_fits(models):
    registry, add = models
    for widths, fits in (
        ((1, 1000), 2**23 // 4000),
        ((1, 100_000, 1), 2**28 // 100_000),
        ((1, *[300] * 20, 1), 2**37 // size_of(1, *[300] * 20, 1)),
    ):
        name = add(*widths)
        with pytest.raises(InvalidFieldsError, match=f"can have at most {fits}") as caught:
            predict(registry, name, to_tensor(np.ones((fits + 1, 1), np.uint8)))
        assert caught.value.metadata == {"max_rows": str(fits)}


def size_of(*widths):
    return sum((a + 1) * b for a, b in pairwise(widths))


def test_a_wide_layer_is_computed_in_blocks_that_bound_the_memory(models):
    registry, add = models
    name = add(1, 100_000, 1)
    tracemalloc.start()
    try:
        outputs = predict(registry, name, to_tensor(np.ones((600, 1), np.uint8)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.allclose(np.frombuffer(outputs.data, np.float32), 50_000.5, rtol=1e-3)
    assert peak < 120 << 20  # The values of the layer take 229 MiB.


@pytest.mark.parametrize("shape", [[1] * 65, [1] * 1000, [2], [2, 3], [2, 0], [2, 2, 1]])
def test_an_absurd_shape_is_an_invalid_argument(models, shape):
    registry, add = models
    inputs = Tensor(dtype=DataType.DATA_TYPE_UINT8, shape=shape, data=b"\0\0\0\0")
    with pytest.raises(InvalidFieldsError, match=r"^inputs must have shape \(rows, 2\), got \(.{1,20}\)$"):
        predict(registry, add(2, 1), inputs)


def test_a_shape_that_does_not_match_the_data_is_an_invalid_argument(models):
    registry, add = models
    name = add(2, 1)
    for rows in (-1, 0, 3):
        with pytest.raises(InvalidFieldsError, match=r"^inputs "):
            predict(registry, name, Tensor(dtype=DataType.DATA_TYPE_UINT8, shape=[rows, 2], data=b"\0\0\0\0"))


def test_two_predictions_run_at_a_time_and_the_queue_is_limited(models, monkeypatch):
    registry, add = models
    name = add(1, 2)
    running, gate, lock = [], threading.Event(), threading.Lock()
    monkeypatch.setattr(registry_module, "_MAX_WAITING_BYTES", 32)
    forward = registry_module.forward

    def slow_forward(*arguments):
        with lock:
            running.append(arguments)
        gate.wait(30)
        return forward(*arguments)

    monkeypatch.setattr(registry_module, "forward", slow_forward)

    async def scenario():
        inputs = to_tensor(np.ones((1, 1), np.float64))
        calls = [asyncio.create_task(registry.predict(OPERATOR, name, inputs)) for _ in range(5)]
        (refused,), others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(ServerBusyError, match="Try again"):
            await refused
        while len(running) < 2:
            await asyncio.sleep(0.001)
        await registry.get(OPERATOR, name)
        assert len(running) == 2
        gate.set()
        assert len(await asyncio.gather(*others)) == len(running) == 4
        # The calls that have ended no longer count.
        assert len(await asyncio.gather(*(registry.predict(OPERATOR, name, inputs) for _ in range(4)))) == 4

    asyncio.run(scenario())
