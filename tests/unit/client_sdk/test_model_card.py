"""Model cards in Markdown."""

import pytest
from epochs import epoch
from grpc import StatusCode
from scripted_server import status

import gradwire as gw
from gradwire._model_card import card
from gradwire._progress import JobProgress
from gradwire_engine.spec.messages import epoch_message
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.tensor_pb2 import DataType
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
EVENTS = [Event(sequence=n, epoch=epoch_message(epoch(n, 1 / n, 2 / n, accuracy=0.5))) for n in (1, 2, 3)]
EVENTS.append(Event(sequence=4, state_change={"state": 5}))


@pytest.fixture
def client(scripted):
    scripted.answer("GetModel", lambda request: MODEL)
    scripted.answer("GetJob", lambda request: JOB)
    events = {after: WatchJobResponse(events=EVENTS[after:]) for after in range(4)}
    scripted.answer("WatchJob", lambda request: iter([events[request.after_sequence]]))
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


def test_a_card_of_a_regression_that_continues_another_job():
    model, job = Model(), Job()
    model.CopyFrom(MODEL)
    model.ClearField("test")
    del model.spec.class_names[:]
    model.labels.clear()
    regression = {"mean_absolute_error": 0.125, "r2": 0.5}
    model.epoch.CopyFrom(epoch_message(epoch(30, 0.25, **regression)))
    model.weights.dtype = DataType.DATA_TYPE_FLOAT64
    model.train.inputs.shape[:] = [1_234_567, 4]
    job.CopyFrom(JOB)
    job.spec.loss.mean_squared_error.SetInParent()
    job.spec.shuffle = False
    job.continue_job = "jobs/before"
    job.execution.plan, job.execution.host = "numba", "node-1"
    progress = JobProgress(None, 30)
    for number in (10, 20, 30):
        progress.add(epoch(number, 3 / number, **regression))
    text = card(model, job, progress, "1.2")
    lines = text.splitlines()
    for line in (
        "| Parameters | 58 (float64, 464 B) |",
        "| Quality | train loss 0.2500, train R2 0.5000 after epoch 30 |",
        "| Job | x |",
        f"| train | 1,234,567 | 1234567 × 4 float32, sha256 {DIGEST} | 30 int64, sha256 {DIGEST} |",
        "| Loss | mean squared error |",
        "| Epochs | 3 |",
        "| Batch size | 8 |",
        "| Seed | 7 |",
        "| Plan | numba on node-1 |",
        "| Continues job | before |",
        "| Metric | Train | Test |",
        "| loss | 0.2500 |  |",
        "| mean absolute error | 0.1250 |  |",
        "| r2 | 0.5000 |  |",
        "train loss     █▃▁ 0.3000 to 0.1000",
        "train r2       ▁▁▁ 0.5000 to 0.5000",
    ):
        assert line in lines
    assert not any(line.startswith(("| test", "| Labels", "| accuracy", "test")) for line in lines)
    assert "## Classes" not in lines
    job.spec.loss.cross_entropy.from_probabilities = True
    job.initial_model = "models/start"
    lines = card(model, job, progress, "1.2").splitlines()
    assert "| Loss | cross-entropy of probabilities |" in lines
    assert "| Starts from model | start |" in lines


def test_a_card_names_a_hundred_classes():
    model = Model()
    model.CopyFrom(MODEL)
    names = [f"c{number}" for number in range(1101)]
    for count, line in ((100, ", ".join(names[:100])), (1101, ", ".join([*names[:100], "and 1,001 more"]))):
        model.spec.class_names[:] = names[:count]
        assert line in card(model, None, JobProgress(None, 0), "1.2").splitlines()


def test_a_job_without_a_model_has_no_card(scripted, client):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=3))
    with pytest.raises(gw.FailedPreconditionError, match="has no model, because it is RUNNING"):
        client.jobs.get("x").card()
