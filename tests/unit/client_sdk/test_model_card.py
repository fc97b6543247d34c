"""Model cards in Markdown."""

import pytest
from epochs import epoch
from grpc import StatusCode
from scripted_server import status

import gradwire as gw
from gradwire_engine.spec.messages import epoch_message
from gradwire_proto.v1.metrics_pb2 import ClassCounts, EvaluationSet
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Event, Job, WatchJobResponse

DIGEST = "ab" * 32
SPEC = {
    "layers": [
        {"name": "fc1", "linear": {"in_features": 4, "out_features": 8}},
        {"name": "relu", "relu": {}},
        {"name": "fc2", "linear": {"in_features": 8, "out_features": 2}},
    ],
    "class_names": ["cat", "<b>|dog\n# x"],
}
DATA = {
    "inputs": {"dtype": 1, "shape": [30, 4], "sha256": DIGEST},
    "targets": {"dtype": 9, "shape": [30], "sha256": DIGEST},
}
MODEL = Model(
    name="models/x", job="jobs/x", spec=SPEC, weights={"dtype": 1, "shape": [58], "sha256": DIGEST}, train=DATA,
    test=DATA, epoch=epoch_message(epoch(3, 0.25, 0.5, accuracy=0.75)), create_time={"seconds": 1_700_000_000},
    labels={"team": "vision"}, architecture="4-8-2",
)  # fmt: skip
JOB = Job(
    name="jobs/x", epochs=3, state=5, model="models/x", spec={
        "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"learning_rate": 0.1}}, "batch_size": 8, "shuffle": True,
        "seed": 7,
    },
)  # fmt: skip
COUNTS = ClassCounts(
    evaluated_on=EvaluationSet.EVALUATION_SET_TEST, epoch=3, class_names=SPEC["class_names"],
    actual=[20, 10], predicted=[18, 12], correct=[15, 7], confusion=[15, 5, 3, 7],
)  # fmt: skip
EVENTS = [Event(sequence=n, epoch=epoch_message(epoch(n, 1 / n, 2 / n, accuracy=0.5))) for n in (1, 2, 3)]
EVENTS.append(Event(sequence=4, state_change={"state": 5}))


@pytest.fixture
def client(scripted):
    scripted.answer("GetModel", lambda request: MODEL)
    scripted.answer("GetJob", lambda request: JOB)
    scripted.answer("GetClassCounts", lambda request: COUNTS)
    scripted.answer("WatchJob", lambda request: iter([WatchJobResponse(events=EVENTS)]))
    with gw.Client(scripted.address) as connected:
        yield connected


def test_a_card_describes_the_model_its_training_its_data_and_its_quality(client):
    card = client.models.card("x")
    for line in (
        "# x",
        "| Architecture | 4-8-2 |",
        "| Parameters | 58 (float32, 232 B) |",
        "| Quality | test loss 0.5000, test accuracy 0.7500 after epoch 3 |",
        "| Created | 2023-11-14 22:13:20 UTC |",
        f"| Weights | sha256 {DIGEST} |",
        "## Metrics of each class",
        "| cat | 0.8333 | 0.7500 | 0.7895 | 20 |",
        "Evaluated on the test set after epoch 3.",
        "| 1 | fc1 | Linear(4, 8) | 40 |",
        "| 2 | relu | ReLU | 0 |",
        f"| train | 30 | 30 × 4 float32, sha256 {DIGEST} | 30 int64, sha256 {DIGEST} |",
        "| Loss | cross-entropy of logits |",
        "| Optimizer | SGD, learning rate 0.1 |",
        "| Batch size | 8, shuffled |",
        "| accuracy | 0.7500 | 0.7500 |",
        "train loss     █▃▁ 1.0000 to 0.3333",
        f"Written by gradwire {gw.__version__}.",
    ):
        assert line in card.splitlines()
    assert client.jobs.get("x").card() == card


def test_names_in_a_card_are_text_and_no_markup(client):
    assert r"cat, \<b\>\|dog \# x" in client.models.card("x").splitlines()


def test_the_card_of_a_model_whose_job_was_deleted_has_no_settings_and_no_curves(scripted, client):
    scripted.answer("GetJob", lambda request: status(StatusCode.NOT_FOUND, "no job x"))
    card = client.models.card("x")
    assert "| Job | x (deleted) |" in card
    assert "## Training" not in card
    assert "## Curves" not in card
    assert "## Metrics" in card


def test_a_job_without_a_model_has_no_card(scripted, client):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=3))
    with pytest.raises(gw.FailedPreconditionError, match="has no model, because it is RUNNING"):
        client.jobs.get("x").card()
