"""Model cards in Markdown."""

from epochs import epoch

from gradwire_engine.spec.messages import classification_report_of, epoch_message
from gradwire_engine.training import Epoch
from gradwire_proto.v1.metrics_pb2 import ClassCounts, EvaluationSet
from gradwire_proto.v1.model_service_pb2 import Model
from gradwire_proto.v1.training_service_pb2 import Job
from gradwire_server.models.card import card

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
    name="jobs/x", epochs=3, state=5, model="models/x", training_seconds=2.5, spec={
        "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"learning_rate": 0.1}}, "batch_size": 8, "shuffle": True,
        "seed": 7,
    },
)  # fmt: skip
COUNTS = ClassCounts(
    evaluated_on=EvaluationSet.EVALUATION_SET_TEST, epoch=3, class_names=SPEC["class_names"],
    actual=[20, 10], predicted=[18, 12], correct=[15, 7],
)  # fmt: skip
REPORT = classification_report_of(COUNTS)
EPOCHS = [epoch(number, 1 / number, 2 / number, accuracy=0.5) for number in (1, 2, 3)]


def test_a_card_describes_the_model_its_training_its_data_and_its_quality():
    lines = card(MODEL, JOB, EPOCHS, "1.2.3", REPORT).splitlines()
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
        "| Time | 2.50 s |",
        "| accuracy | 0.7500 | 0.7500 |",
        "| cat | 0.8333 | 0.7500 | 0.7895 | 20 |",
        r"| \<b\>\|dog \# x | 0.5833 | 0.7000 | 0.6364 | 10 |",
        "Evaluated on the test set after epoch 3.",
        "train loss     █▃▁ 1.0000 to 0.3333",
        "Written by gradwire 1.2.3.",
    ):
        assert line in lines


def test_names_in_a_card_are_text_and_no_markup():
    assert r"cat, \<b\>\|dog \# x" in card(MODEL, JOB, EPOCHS, "").splitlines()


def test_a_card_lists_at_most_100_classes():
    counts = ClassCounts(epoch=3, actual=[1] * 101, predicted=[1] * 101, correct=[1] * 101)
    lines = card(MODEL, JOB, EPOCHS, "", classification_report_of(counts)).splitlines()
    assert "| 99 | 1.0000 | 1.0000 | 1.0000 | 1 |" in lines
    assert "| 100 | 1.0000 | 1.0000 | 1.0000 | 1 |" not in lines
    assert "1 other classes are not shown." in lines
    assert "## Metrics of each class" not in card(MODEL, JOB, EPOCHS, "")


def test_the_card_of_a_model_whose_job_was_deleted_has_no_settings_and_no_curves():
    text = card(MODEL, None, [], "")
    assert "| Job | x (deleted) |" in text
    assert "## Training" not in text
    assert "## Curves" not in text
    assert "## Metrics" in text


def test_a_job_that_was_never_evaluated_has_the_curve_of_the_running_loss():
    epochs = [Epoch(number, 1 / number, None, None, 0.0, 0.0) for number in (1, 2)]
    text = card(MODEL, JOB, epochs, "")
    assert "train loss     █▁ 1.0000 to 0.5000" in text.splitlines()
    assert "test  loss" not in text
