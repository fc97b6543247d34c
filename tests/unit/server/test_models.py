"""Predictions: which inputs a model accepts."""

import asyncio

import numpy as np
import pytest

from gradwire_engine.spec.tensors import from_tensor, tensor_ref, to_tensor, wire_bytes
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.spec_pb2 import Layer
from gradwire_server.errors import InvalidFieldsError
from gradwire_server.models import registry
from gradwire_server.models.registry import ModelRegistry
from gradwire_server.principal import OPERATOR
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.storage.checkpoint_store import CheckpointStore
from gradwire_server.store import model_queries

# One Linear layer from two features to one output: W is (10, 100), b is 1.
WEIGHTS = np.array([10, 100, 1], np.float32)


@pytest.fixture
def predict(database, tmp_path):
    """Runs a model on an array."""
    blobs = BlobStore((tmp_path / "blobs").as_uri(), tmp_path / "scratch")
    reference = tensor_ref(WEIGHTS)
    blobs.put(reference.sha256, wire_bytes(WEIGHTS))
    layers = [Layer(name="0", linear={"in_features": 2, "out_features": 1})]
    model = Model(name="models/a", spec={"layers": layers}, weights=reference)
    asyncio.run(database.write(lambda connection: model_queries.insert_model(connection, "a", model)))
    models = ModelRegistry(database, blobs, CheckpointStore(blobs))
    return lambda inputs: from_tensor(asyncio.run(models.predict(OPERATOR, "models/a", to_tensor(inputs))))


def test_a_model_is_run_on_inputs_up_to_a_size(predict, monkeypatch):
    inputs = np.array([[1, 2], [3, 4]], np.float32)
    monkeypatch.setattr(registry, "MAX_PREDICT_BYTES", inputs.nbytes)
    assert predict(inputs).tolist() == [[211], [431]]
    monkeypatch.setattr(registry, "MAX_PREDICT_BYTES", inputs.nbytes - 1)
    with pytest.raises(InvalidFieldsError, match=r"has 16 bytes, more than 15. Send the rows in several calls"):
        predict(inputs)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (np.zeros((1, 3), np.float32), "must have shape"),
        (np.zeros(2, np.float32), "must have shape"),
        (np.array([[0, np.nan]], np.float32), "must be finite"),
        (np.array([[np.inf, 0]], np.float32), "must be finite"),
    ],
)
def test_inputs_that_do_not_match_the_model_are_refused(predict, inputs, said):
    with pytest.raises(InvalidFieldsError, match=said):
        predict(inputs)
