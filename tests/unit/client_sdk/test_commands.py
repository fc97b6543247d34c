"""The commands, run in this process against a server with scripted responses: calls, values and exit codes."""

import json
import sys

import numpy as np
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckResponse
from scripted_server import status
from small import X, Y

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire.cli import main, training
from gradwire_engine.spec.tensors import from_tensor, to_tensor
from gradwire_proto.v1.model_service_pb2 import GetModelCardResponse, ListModelsResponse, Model, PredictResponse
from gradwire_proto.v1.training_service_pb2 import Event, Job, ListJobsResponse, WatchJobResponse

QUEUED, RUNNING, PAUSED, SUCCEEDED, FAILED, CANCELLED = 1, 3, 4, 5, 6, 7


@pytest.fixture
def gradwire(monkeypatch, capsys):
    """Runs a command, and returns its exit code, its output and its errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradwire", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.app()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


EPOCH = {"epoch": 2, "running_loss": 0.5, "train": {"loss": 0.25, "accuracy": 0.0}, "train_seconds": 1.5}
EPOCH_VALUES = {
    "epoch": 2,
    "running_loss": 0.5,
    "train": {
        "loss": 0.25,
        "accuracy": 0.0,
        "precision": None,
        "recall": None,
        "f1": None,
        "mean_absolute_error": None,
        "r2": None,
    },
    "test": None,
    "train_seconds": 1.5,
    "evaluate_seconds": 0.0,
}
JOB = {
    "name": "jobs/x",
    "architecture": "4-3",
    "epochs": 2,
    "attempt": 3,
    "create_time": {"seconds": 1_700_000_000},
    "start_time": {"seconds": 1_700_000_001},
    "last_epoch": EPOCH,
    "labels": {"team": "vision"},
    "disk_usage": {"log_bytes": 700, "checkpoint_bytes": 120},
    "execution": {"plan": "compiled", "plan_reason": "why", "device": "cpu", "host": "here", "threads": 2},
}
JOB_VALUES = {
    "name": "x",
    "state": "FAILED",
    "architecture": "4-3",
    "epochs": 2,
    "initial_epoch": 0,
    "last_epoch": EPOCH_VALUES,
    "attempt": 3,
    "created": "2023-11-14T22:13:20+00:00",
    "started": "2023-11-14T22:13:21+00:00",
    "ended": None,
    "error": "the loss is not finite",
    "error_reason": "LOSS_NOT_FINITE",
    "model": None,
    "plan": {"name": "compiled", "reason": "why", "device": "cpu", "host": "here", "threads": 2},
    "labels": {"team": "vision"},
    "log_bytes": 700,
    "checkpoint_bytes": 120,
    "stop_reason": None,
    "stop_requested": None,
    "best_epoch": None,
    "epochs_without_improvement": 0,
    "kept_epochs": [],
    "training_seconds": 0.0,
}
ERROR = {"reason": 1, "message": "the loss is not finite"}


def serve_job(scripted, state, **fields):
    """Serve a job that has one epoch and is in the given state."""
    end = {"state": state, **({"error": ERROR} if state == FAILED else {})}
    events = [Event(sequence=1, epoch=EPOCH), Event(sequence=2, state_change=end)]
    scripted.answer("GetJob", lambda request: Job(state=state, last_sequence=2, **JOB, **fields))
    scripted.answer("WatchJob", lambda request: iter([WatchJobResponse(events=events[request.after_sequence :])]))


def calls(scripted):
    return [type(request).__name__.removesuffix("Request") for request in scripted.requests]


@pytest.mark.parametrize("options", [(), ("--events",), ("--json",), ("--events", "--json")])
@pytest.mark.parametrize(
    ("state", "code", "message"),
    [
        (SUCCEEDED, 0, ""),
        (FAILED, 1, "gradwire: job 'x' failed: the loss is not finite"),
        (CANCELLED, 1, "gradwire: job 'x' was cancelled"),
    ],
)
def test_the_exit_code_of_watch_says_how_the_job_ended(scripted, gradwire, state, code, message, options):
    serve_job(scripted, state, **({"error": ERROR} if state == FAILED else {}))
    ended, _, errors = gradwire("jobs", "watch", "x", "--at", scripted.address, *options)
    assert (ended, errors.strip()) == (code, message)


def test_several_jobs_are_watched_together_and_one_failure_decides_the_exit_code(scripted, gradwire):
    states = {"jobs/a": SUCCEEDED, "jobs/b": FAILED, "jobs/c": CANCELLED}

    def job(request):
        fields = {"error": ERROR} if states[request.name] == FAILED else {}
        return Job(state=states[request.name], **(JOB | {"name": request.name}), **fields)

    def watch(request):
        end = {"state": states[request.name], **({"error": ERROR} if states[request.name] == FAILED else {})}
        yield WatchJobResponse(events=[Event(sequence=1, epoch=EPOCH), Event(sequence=2, state_change=end)])

    scripted.answer("GetJob", job)
    scripted.answer("WatchJob", watch)
    at = ("--at", scripted.address)
    code, output, errors = gradwire("jobs", "watch", "a", "b", "c", "a", *at)
    assert code == 1
    assert sorted(
        line.split(" train")[0] for line in output.splitlines() if "train loss" in line and "Best" not in line
    ) == [f"{name}: epoch 2 " for name in "abc"]
    assert errors.splitlines() == [
        "gradwire: job 'b' failed: the loss is not finite",
        "gradwire: job 'c' was cancelled",
    ]
    lines = gradwire("jobs", "watch", "a", "b", "--json", *at)[1].splitlines()
    assert sorted((json.loads(line)["job"], json.loads(line)["epoch"]) for line in lines) == [("a", 2), ("b", 2)]
    lines = gradwire("jobs", "watch", "a", "b", "--events", *at)[1].splitlines()
    assert sorted(line.split()[0] for line in lines) == ["a", "a", "b", "b"]
    assert gradwire("jobs", "watch", "a", *at)[0] == 0


@pytest.mark.parametrize(
    ("command", "call", "state", "text"),
    [
        ("pause", "PauseJob", PAUSED, "x is PAUSED\n"),
        ("resume", "ResumeJob", QUEUED, "x is QUEUED\n"),
        ("cancel", "CancelJob", CANCELLED, "x is CANCELLED\n"),
        ("stop", "StopJob", RUNNING, "x is RUNNING and ends after this epoch\n"),
        ("stop", "StopJob", SUCCEEDED, "x is SUCCEEDED\n"),
    ],
)
def test_each_command_for_a_job_makes_its_own_call(scripted, gradwire, command, call, state, text):
    serve_job(scripted, RUNNING)
    scripted.answer(call, lambda request: Job(name=request.name, state=state))
    assert gradwire("jobs", command, "x", "--at", scripted.address) == (0, text, "")
    assert calls(scripted) == ["GetJob", call]


@pytest.mark.parametrize(("status", "code"), [("SERVING", 0), ("NOT_SERVING", 1)])
def test_the_exit_code_of_health_says_whether_the_server_accepts_jobs(scripted, gradwire, status, code):
    scripted.health.set("", HealthCheckResponse.ServingStatus.Value(status))
    assert gradwire("health", "--at", scripted.address) == (code, f"{status}\n", "")


def test_a_job_in_json_has_the_values_of_the_job(scripted, gradwire):
    serve_job(scripted, FAILED, error=ERROR)
    code, output, _ = gradwire("jobs", "show", "x", "--json", "--at", scripted.address)
    assert (code, json.loads(output)) == (0, JOB_VALUES)
    jobs = [Job(state=FAILED, error=ERROR, **JOB), Job(name="jobs/y", state=QUEUED)]
    scripted.answer("ListJobs", lambda request: ListJobsResponse(jobs=jobs))
    first, second = json.loads(gradwire("jobs", "list", "--json", "--at", scripted.address)[1])
    assert first == JOB_VALUES
    assert (second["name"], second["state"], second["last_epoch"]) == ("y", "QUEUED", None)


def test_a_job_that_stopped_early_shows_why_and_its_best_and_kept_epochs(scripted, gradwire):
    kept = [*range(10, 150, 10), 145]
    serve_job(scripted, SUCCEEDED, stop_reason=2, best_epoch=EPOCH, kept_epochs=kept, training_seconds=1.5)
    show = ("jobs", "show", "x", "--at", scripted.address)
    rows = dict(line.split("\t", 1) for line in gradwire(*show)[1].splitlines())
    assert rows["stopped by"] == "EARLY_STOPPING"
    assert rows["best epoch"].startswith("epoch 2  train loss 0.25")
    assert rows["kept epochs"] == "10, 20, 30, 40, 50, 60, 70, 80, 90, ..., 145"
    values = json.loads(gradwire(*show, "--json")[1])
    assert (values["stop_reason"], values["best_epoch"], values["kept_epochs"]) == (
        "EARLY_STOPPING",
        EPOCH_VALUES,
        kept,
    )
    assert values["training_seconds"] == 1.5


def test_a_watch_in_json_has_the_values_of_epochs_and_events(scripted, gradwire):
    serve_job(scripted, SUCCEEDED)
    (epoch,) = gradwire("jobs", "watch", "x", "--json", "--at", scripted.address)[1].splitlines()
    assert json.loads(epoch) == EPOCH_VALUES
    lines = gradwire("jobs", "watch", "x", "--events", "--json", "--at", scripted.address)[1].splitlines()
    events = [json.loads(line) for line in lines]
    assert [(event["sequence"], event["kind"], event["state"]) for event in events] == [
        (1, "epoch", None),
        (2, "state_change", "SUCCEEDED"),
    ]
    assert events[0]["epoch"] == EPOCH_VALUES


def test_a_model_in_json_has_the_values_of_the_model(scripted, gradwire):
    weights = {"shape": [15], "sha256": "0" * 64}
    model = Model(
        name="models/x", job="jobs/x", architecture="4-3", weights=weights, epoch=EPOCH, labels={"a": "b"},
        create_time={"seconds": 1_700_000_000},
    )  # fmt: skip
    expected = {
        "name": "x",
        "job": "x",
        "architecture": "4-3",
        "parameters": 15,
        "weights_sha256": "0" * 64,
        "epoch": EPOCH_VALUES,
        "created": "2023-11-14T22:13:20+00:00",
        "labels": {"a": "b"},
        "class_names": [],
    }
    scripted.answer("GetModel", lambda request: model)
    assert json.loads(gradwire("models", "show", "x", "--json", "--at", scripted.address)[1]) == expected
    scripted.answer("ListModels", lambda request: ListModelsResponse(models=[model]))
    assert json.loads(gradwire("models", "list", "--json", "--at", scripted.address)[1]) == [expected]


def test_predict_prints_the_outputs_or_the_class_with_the_largest(scripted, gradwire, tmp_path):
    outputs = np.array([[0.5, 3.0, -1.0], [2.0, -0.25, 1.0], [0.0, 1.0, 7.5]], np.float32)
    scripted.answer("GetModel", lambda request: Model(name=request.name, weights={"shape": [15]}))
    scripted.answer("Predict", lambda request: PredictResponse(outputs=to_tensor(outputs)))
    np.save(tmp_path / "x.npy", X[:3])
    predict = ("models", "predict", "x", "--data", tmp_path / "x.npy", "--at", scripted.address)
    assert gradwire(*predict)[1] == "0.5,3,-1\n2,-0.25,1\n0,1,7.5\n"
    assert gradwire(*predict, "--classes")[1] == "1\n0\n2\n"
    assert json.loads(gradwire(*predict, "--json")[1]) == {"outputs": outputs.tolist()}
    assert json.loads(gradwire(*predict, "--classes", "--json")[1]) == {"classes": [1, 0, 2]}
    assert {request.epoch for request in scripted.requests} == {0}
    gradwire(*predict, "--classes", "--epoch", "7")
    assert [request.epoch for request in scripted.requests[-2:]] == [7, 7]


FIRST_IS_BEST = gw.EarlyStopping(patience=2, min_delta=9)


@pytest.mark.parametrize("option", [("--monitor", "test.loss"), ("--min-delta", "0.1")])
def test_the_options_of_early_stopping_need_the_patience(gradwire, tmp_path, option):
    code, _, errors = gradwire("train", "--data", tmp_path / "d.npz", "--layers", "4,3", *option)
    assert (code, errors.strip()) == (1, f"gradwire: {option[0]} needs --patience")


def serve_classifier(scripted, loss):
    outputs = np.array([[1.0, 1.0], [1000.0, 0.0]], np.float32)
    epoch = EPOCH | {"train": {"loss": 0.25, **({} if loss == "mean_squared_error" else {"accuracy": 0.5})}}
    scripted.answer("GetModel", lambda request: Model(name=request.name, job="jobs/x", epoch=epoch))
    scripted.answer("GetJob", lambda request: Job(name=request.name, spec={"loss": {loss: {}}}))
    scripted.answer("Predict", lambda request: PredictResponse(outputs=to_tensor(outputs)))
    return outputs


def test_predict_prints_the_probabilities_of_the_classes(scripted, gradwire, tmp_path):
    serve_classifier(scripted, "cross_entropy")
    np.save(tmp_path / "x.npy", X[:2])
    predict = ("models", "predict", "x", "--data", tmp_path / "x.npy", "--probabilities", "--at", scripted.address)
    assert gradwire(*predict)[1] == "0.5,0.5\n1,0\n"
    assert json.loads(gradwire(*predict, "--json")[1]) == {"probabilities": [[0.5, 0.5], [1.0, 0.0]]}
    assert "cannot be used together" in gradwire(*predict, "--classes")[2]


def test_outputs_that_are_no_logits_have_no_probabilities_or_are_probabilities(scripted):
    outputs = serve_classifier(scripted, "mean_squared_error")
    with gw.Client(scripted.address) as client:
        with pytest.raises(gw.InvalidArgumentError, match="'x' was not trained with CrossEntropy"):
            client.models.predict("x", X[:2], probabilities=True)
        serve_classifier(scripted, "cross_entropy")
        loss = {"cross_entropy": {"from_probabilities": True}}
        scripted.answer("GetJob", lambda request: Job(name=request.name, spec={"loss": loss}))
        assert np.array_equal(client.models.predict("x", X[:2], probabilities=True), outputs)
        scripted.answer("GetJob", lambda request: status(StatusCode.NOT_FOUND, "no job x"))
        assert client.models.predict("x", X[:2], probabilities=True).tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_only_an_onnx_file_of_a_classifier_with_logits_has_probabilities(scripted, tmp_path):
    serve_classifier(scripted, "mean_squared_error")
    with gw.Client(scripted.address) as client:
        with pytest.raises(gw.InvalidArgumentError, match="file can have them, not 'npz'"):
            client.models.download("x", tmp_path / "m.npz", probabilities=True)
        with pytest.raises(gw.InvalidArgumentError, match="was not trained with CrossEntropy"):
            client.models.download("x", tmp_path / "m.onnx", probabilities=True)
        serve_classifier(scripted, "cross_entropy")
        loss = {"cross_entropy": {"from_probabilities": True}}
        scripted.answer("GetJob", lambda request: Job(name=request.name, spec={"loss": loss}))
        with pytest.raises(gw.InvalidArgumentError, match="are already probabilities"):
            client.models.download("x", tmp_path / "m.onnx", probabilities=True)
    assert not list(tmp_path.iterdir())


def test_the_card_of_a_model_is_printed_or_written(scripted, gradwire, tmp_path):
    scripted.answer("GetModelCard", lambda request: GetModelCardResponse(markdown=f"# {request.name}\n"))
    code, output, _ = gradwire("models", "card", "x", "--at", scripted.address)
    assert (code, output) == (0, "# models/x\n")
    file = tmp_path / "card.md"
    assert gradwire("models", "card", "x", "-o", file, "--at", scripted.address)[1] == f"wrote {file}\n"
    assert file.read_text() == output
    absent = tmp_path / "nowhere" / "card.md"
    assert "nowhere does not exist. Create it first" in gradwire("models", "card", "x", "-o", absent)[2]
    assert "cannot write" in gradwire("models", "card", "x", "-o", tmp_path, "--at", scripted.address)[2]


def test_a_model_that_predicts_numbers_has_no_classes(scripted, gradwire, tmp_path):
    outputs = [np.array([[1.5], [2.5]], np.float32), np.array([[1.5, 1.0], [2.5, 1.0]], np.float32)]
    epoch = EPOCH | {"train": {"loss": 0.25, "mean_absolute_error": 0.5}}
    np.save(tmp_path / "x.npy", X[:2])
    predict = ("models", "predict", "reg", "--data", tmp_path / "x.npy", "--classes", "--at", scripted.address)
    for each, of_epoch in zip(outputs, ({}, epoch), strict=True):
        scripted.answer("Predict", lambda request, each=each: PredictResponse(outputs=to_tensor(each)))
        scripted.answer(
            "GetModel",
            lambda request, of_epoch=of_epoch: Model(name=request.name, epoch=of_epoch, weights={"shape": [5]}),
        )
        code, output, errors = gradwire(*predict)
        assert (code, output) == (1, "")
        assert errors == "gradwire: --classes: model 'reg' predicts numbers, not classes. Leave out --classes.\n"


def test_inputs_are_scaled_for_a_prediction_as_for_training(scripted, gradwire, tmp_path):
    scripted.answer("Predict", lambda request: PredictResponse(outputs=to_tensor(from_tensor(request.inputs))))
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0]], np.float32))
    predict = ("models", "predict", "x", "--data", tmp_path / "x.npy", "--at", scripted.address)
    assert gradwire(*predict, "--scale", "0.5")[1] == "0.5,1\n"


@pytest.mark.parametrize(
    ("group", "get", "delete"), [("jobs", "GetJob", "DeleteJob"), ("models", "GetModel", "DeleteModel")]
)
def test_deleting_a_name_that_does_not_exist_says_so(scripted, gradwire, group, get, delete):
    kind = group.removesuffix("s")

    def found(request):
        if request.name.endswith("/nope"):
            return status(StatusCode.NOT_FOUND, f"{kind} {request.name!r} does not exist", reason="X")
        return Job(name=request.name) if group == "jobs" else Model(name=request.name, weights={"shape": [5]})

    scripted.answer(get, found)
    scripted.answer(delete, lambda request: Empty())
    assert gradwire(group, "delete", "nope", "x", "--at", scripted.address) == (
        0,
        "deleted x\n",
        f"gradwire: {kind} 'nope' does not exist\n",
    )


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_interrupted_training_without_a_server_keeps_the_last_epoch(gradwire, monkeypatch, tmp_path, epochs):
    def interrupted(model, *_, **__):
        if epochs:
            model.fc1.W.data += 1
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y)
    file = tmp_path / "m.safetensors"
    arguments = ("--data", tmp_path / "d.npz", "--layers", "4,3", "--at", "local", "-o", file)
    expected = (130, "", f"wrote {file}\n" if epochs else "")
    assert gradwire("train", *arguments) == expected
    assert file.exists() == bool(epochs)


def test_training_without_a_server_or_a_file_says_that_the_model_is_lost(gradwire, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "fit", lambda *_, **__: gw.History())
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y)
    arguments = ("--data", tmp_path / "d.npz", "--layers", "4,3", "--at", "local")
    assert "To keep it, use -o FILE" in gradwire("train", *arguments)[2]
    assert gradwire("train", *arguments, "-o", tmp_path / "m.npz")[2] == ""


@pytest.mark.parametrize(("option", "epoch"), [("--restore-best", 1), ("--no-restore-best", 3)])
def test_the_weights_of_the_best_epoch_are_restored_unless_that_is_turned_off(gradwire, tmp_path, option, epoch):
    np.savez(tmp_path / "d.npz", x_train=X[:20], y_train=Y[:20], x_test=X[20:], y_test=Y[20:])
    arguments = ("--data", tmp_path / "d.npz", "--layers", "4,3", "--epochs", "9", "--at", "local")
    code, output, _ = gradwire("train", "--json", *arguments, "--patience", "2", "--min-delta", "9", option)
    history = json.loads(output)
    assert (code, len(history["epochs"]), history["stop_reason"]) == (0, 3, "EARLY_STOPPING")
    assert history["model_epoch"] == epoch


def expected_epochs(scale=1.0, **changes):
    gw.seed(0)
    model = Sequential(fc1=Linear(4, 8), relu1=ReLU(), fc2=Linear(8, 3))
    train, test = (X[:20] * scale, Y[:20]), (X[20:] * scale, Y[20:])
    options = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.5), "epochs": 2, "batch_size": 4}
    history = gw.fit(model, train, test=test, at="local", **(options | changes))
    return [(epoch.running_loss, vars(epoch.train), vars(epoch.test)) for epoch in history]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ((), {}),
        (("--no-shuffle",), {"shuffle": False}),
        (("--scale", "0.25"), {"scale": 0.25}),
        (("--seed", "0", "--batch-size", "7"), {"batch_size": 7}),
        (("--max-seconds", "1e-9"), {"max_seconds": 1e-9}),
        (("--epochs", "5", "--patience", "2", "--min-delta", "9"), {"epochs": 5, "early_stopping": FIRST_IS_BEST}),
    ],
)
def test_the_options_of_train_reach_the_fit(gradwire, monkeypatch, tmp_path, options, changes):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    np.savez(tmp_path / "d.npz", x_train=X[:20], y_train=Y[:20], x_test=X[20:], y_test=Y[20:])
    arguments = ("--data", tmp_path / "d.npz", "--layers", "4,8,3", "--lr", "0.5", "--epochs", "2", "--at", "local")
    code, output, _ = gradwire("train", "--json", "--batch-size", "4", *arguments, *options)
    epochs = [(epoch["running_loss"], epoch["train"], epoch["test"]) for epoch in json.loads(output)["epochs"]]
    assert (code, epochs) == (0, expected_epochs(**changes))
    if changes:
        assert epochs != expected_epochs(), "the option changes the numbers"
