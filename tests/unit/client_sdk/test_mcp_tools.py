"""The tools of `gradwire mcp`, against a server with scripted responses: calls, results, bounds and errors."""

import asyncio
import inspect
import json
import math
import sys
import threading

import numpy as np
import pytest
from grpc import StatusCode
from mcp.server.fastmcp.exceptions import ToolError
from scripted_server import status
from small import X, Y

import gradwire as gw
from gradwire.cli import main, mcp
from gradwire.cli.mcp_tools import _Tools, mcp_server
from gradwire.cli.training import train
from gradwire_engine.spec.tensors import from_tensor, tensor_ref, to_tensor
from gradwire_proto.v1.model_service_pb2 import ListModelsResponse, Model, PredictResponse
from gradwire_proto.v1.spec_pb2 import Device
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsResponse
from gradwire_proto.v1.training_service_pb2 import Event, Job, ListJobsResponse, SampleEpochsResponse, WatchJobResponse

QUEUED, RUNNING, PAUSED, SUCCEEDED = 1, 3, 4, 5


@pytest.fixture
def call(scripted):
    """Calls a tool, and returns its result."""

    async def of(tool, arguments):
        async with gw.AsyncClient(scripted.address) as client:
            (content,) = await mcp_server(client).call_tool(tool, arguments)
            return json.loads(content.text)

    return lambda tool, **arguments: asyncio.run(of(tool, arguments))


def epoch(number, loss=0.5):
    return {"epoch": number, "running_loss": 0.5, "train": {"loss": loss, "accuracy": 0.123456789}}


def serve_job(scripted, state, losses, watched=None, **fields):
    """Serve a job with an epoch for each loss. If it has not ended, a watch waits for the event `watched`."""
    epochs = [epoch(number, loss) for number, loss in enumerate(losses, start=1)]
    events = [Event(sequence=each["epoch"], epoch=each) for each in epochs]
    last = {"last_epoch": epochs[-1]} if epochs else {}
    if state == SUCCEEDED:
        events.append(Event(sequence=len(events) + 1, state_change={"state": state}))

    def watch(request):
        if events[request.after_sequence :]:
            yield WatchJobResponse(events=events[request.after_sequence :])
        if watched is not None:
            watched.wait(60)

    job = Job(name="jobs/x", architecture="4-3", epochs=100, state=state, last_sequence=len(events), **last, **fields)
    scripted.answer("GetJob", lambda request: job)
    scripted.answer("WatchJob", watch)


def calls(scripted):
    return [type(request).__name__.removesuffix("Request") for request in scripted.requests]


def test_a_job_has_its_best_and_last_epoch_and_some_in_between(scripted, call):
    losses = [1.0] * 100
    losses[41] = 0.25
    serve_job(scripted, SUCCEEDED, losses, stop_reason=1)
    job = call("get_job", name="x")
    assert (job["name"], job["state"], job["layers"], job["epochs"]) == ("x", "SUCCEEDED", "4-3", "100/100")
    assert job["best"] == {"epoch": 42, "running_loss": 0.5, "train_loss": 0.25, "train_accuracy": 0.123457}
    assert job["last"]["epoch"] == 100
    assert [each["epoch"] for each in job["epochs_from_first_to_last"]] == [1, 12, 23, 34, 45, 56, 67, 78, 89, 100]
    assert "error" not in job


def test_a_long_job_is_summarized_from_a_sample_of_its_epochs(scripted, call):
    serve_job(scripted, SUCCEEDED, [1.0] * 1000)
    sampled = SampleEpochsResponse(epochs=[epoch(1), epoch(500, 0.25), epoch(1000)])
    scripted.answer("SampleEpochs", lambda request: sampled)
    job = call("get_job", name="x")
    assert [each["epoch"] for each in job["epochs_from_first_to_last"]] == [1, 500, 1000]
    assert (job["best_of_sample"]["epoch"], job["last"]["epoch"]) == (500, 1000)
    assert call("compare", names=["x"])[0]["best_of_sample"]["epoch"] == 500
    call("watch", name="x")
    assert (scripted.requests[-1].first_epoch, scripted.requests[-1].last_epoch) == (981, 1000)
    assert "WatchJob" not in calls(scripted)


def test_the_best_epoch_is_the_one_that_the_server_monitors(scripted, call):
    serve_job(scripted, SUCCEEDED, [1.0, 0.5, 0.75], best_epoch=epoch(3))
    assert call("get_job", name="x")["best"]["epoch"] == 3


def test_a_job_without_epochs_and_a_loss_that_is_no_number_are_shown(scripted, call):
    serve_job(scripted, QUEUED, [])
    assert call("get_job", name="x") == {"name": "x", "state": "QUEUED", "layers": "4-3", "epochs": "0/100"} | {
        "training_seconds": 0.0
    }
    serve_job(scripted, SUCCEEDED, [math.nan])
    assert call("get_job", name="x")["last"]["train_loss"] == "nan"


def test_a_watch_ends_with_the_job_or_with_its_time_and_shows_the_latest_epochs(scripted, call):
    serve_job(scripted, SUCCEEDED, [0.5] * 50)
    latest = [each["epoch"] for each in call("watch", name="x")["latest_epochs"]]
    assert latest == list(range(31, 51))
    assert [each["epoch"] for each in call("watch", name="x", after=48)["latest_epochs"]] == [49, 50]
    assert call("watch", name="x", after=50)["latest_epochs"] == []
    end_of_the_test = threading.Event()
    serve_job(scripted, RUNNING, [0.5] * 3, end_of_the_test)
    running = call("watch", name="x", seconds=0.05, after=1)
    end_of_the_test.set()
    assert (running["state"], [each["epoch"] for each in running["latest_epochs"]]) == ("RUNNING", [2, 3])


def test_a_watch_of_a_paused_job_does_not_wait(scripted, call):
    serve_job(scripted, PAUSED, [])
    assert call("watch", name="x", seconds=50)["state"] == "PAUSED"
    assert calls(scripted) == ["GetJob"]


def test_jobs_and_models_are_listed_and_compared(scripted, call):
    jobs = [Job(name="jobs/x", state=RUNNING, epochs=9, labels={"a": "b"}), Job(name="jobs/y", state=QUEUED, epochs=9)]
    scripted.answer("ListJobs", lambda request: ListJobsResponse(jobs=jobs))
    assert [(job["name"], job.get("labels")) for job in call("list_jobs", filter="f")] == [
        ("x", {"a": "b"}),
        ("y", None),
    ]
    assert scripted.requests[-1].filter == "f"
    call("list_jobs", limit=1)
    assert scripted.requests[-1].page_size == 1
    model = Model(name="models/x", job="jobs/x", architecture="4-3", weights={"shape": [15]}, epoch=epoch(7))
    scripted.answer("ListModels", lambda request: ListModelsResponse(models=[model]))
    (listed,) = call("list_models")
    assert (listed["name"], listed["parameters"], listed["epoch"], listed["train_loss"]) == ("x", 15, 7, 0.5)
    serve_job(scripted, SUCCEEDED, [0.5, 0.25, 0.75])
    compared = call("compare", names=["x", "x"])
    assert [(job["best"]["epoch"], job["last"]["epoch"]) for job in compared] == [(2, 3), (2, 3)]


def test_stop_stops_the_job(scripted, call):
    serve_job(scripted, RUNNING, [])
    scripted.answer("StopJob", lambda request: Job(name=request.name, state=RUNNING))
    assert call("stop", name="x")["state"] == "RUNNING"
    assert calls(scripted) == ["GetJob", "StopJob"]


def test_train_submits_the_job_that_the_command_would_submit(scripted, call, tmp_path):
    scripted.answer("FindMissingTensors", lambda request: FindMissingTensorsResponse())
    scripted.answer("CreateJob", lambda request: Job(name=f"jobs/{request.job_id}", state=QUEUED, epochs=7))
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6])
    arguments = {"data": str(tmp_path / "d.npz"), "layers": "4,8,3", "lr": 0.5, "epochs": 7, "batch_size": 5, "seed": 3}
    started = call("train", **arguments, scale=0.5, patience=2, monitor="test.accuracy", max_seconds=9, name="x")
    assert (started["name"], started["state"], started["epochs"]) == ("x", "QUEUED", "0/7")
    spec = scripted.requests[-1].job.spec
    assert [layer.linear.out_features for layer in spec.model.layers] == [8, 0, 3]
    assert (spec.epochs, spec.batch_size, spec.seed, spec.optimizer.sgd.learning_rate) == (7, 5, 3, 0.5)
    assert (spec.early_stopping.patience, spec.early_stopping.monitor) == (2, "test.accuracy")
    assert (spec.early_stopping.restore_best, spec.max_seconds) == (True, 9)
    assert (list(spec.train.inputs.shape), list(spec.test.inputs.shape)) == ([30, 4], [6, 4])
    assert spec.train.inputs.sha256 == tensor_ref(X * np.float32(0.5)).sha256


def test_train_has_the_options_of_the_command(scripted, call, tmp_path):
    scripted.answer("FindMissingTensors", lambda request: FindMissingTensorsResponse())
    scripted.answer("CreateJob", lambda request: Job(name="jobs/x", state=QUEUED, labels=request.job.labels))
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y)
    stopping = {"patience": 3, "monitor": "train.loss", "min_delta": 0.5, "restore_best": False}
    started = call(
        "train", data=str(tmp_path / "d.npz"), layers="4,3", **stopping, keep="every:4", labels={"team": "vision"},
        classes=["a", "b", "c"], shuffle=False, device="cpu",
    )  # fmt: skip
    assert started["labels"] == {"team": "vision"}
    spec = scripted.requests[-1].job.spec
    assert {name: getattr(spec.early_stopping, name) for name in stopping} == stopping
    assert (spec.keep.every, list(spec.model.class_names), spec.shuffle) == (4, ["a", "b", "c"], False)
    assert spec.device == Device.DEVICE_CPU


def test_each_option_of_the_train_command_is_an_argument_of_the_tool():
    with_labels = {"labels" if name == "label" else name for name in inspect.signature(train).parameters}
    of_the_command = {"output", "at", "token", "tls", "as_json"}
    assert with_labels - of_the_command == set(inspect.signature(_Tools.train).parameters) - {"self"}


def test_a_prediction_of_a_file_returns_its_first_rows_as_short_numbers(scripted, call, tmp_path):
    scripted.answer("Predict", lambda request: PredictResponse(outputs=to_tensor(from_tensor(request.inputs))))
    np.save(tmp_path / "x.npy", np.full((150, 2), 1 / 3))
    result = call("predict", name="x", data=str(tmp_path / "x.npy"), scale=2)
    assert (result["rows"], result["rows_returned"]) == (150, 100)
    assert result["outputs"] == [[0.666667, 0.666667]] * 100
    assert list(scripted.requests[-1].inputs.shape) == [100, 2]
    np.save(tmp_path / "x.npy", np.zeros((150, 30)))
    assert call("predict", name="x", data=str(tmp_path / "x.npy"))["rows_returned"] == 33


def test_rows_are_predicted_as_outputs_or_classes(scripted, call):
    model = Model(name="models/x", weights={"shape": [6]}, spec={"class_names": ["cat", "dog"]})
    scripted.answer("GetModel", lambda request: model)
    scripted.answer("Predict", lambda request: PredictResponse(outputs=request.inputs))
    rows = [[1, 0], [0.5, 2]]
    assert call("predict", name="x", rows=rows) == {"rows": 2, "rows_returned": 2, "outputs": [[1.0, 0.0], [0.5, 2.0]]}
    assert call("predict", name="x", rows=rows, classes=True)["classes"] == ["cat", "dog"]
    with pytest.raises(ToolError, match="a row has 1001 outputs, which is too much to return"):
        call("predict", name="x", rows=[[0.0] * 1001])


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("get_job", {"name": "x"}, "no job has the name 'x'"),
        ("train", {"data": "d.npz", "layers": "4,3", "loss": "l1"}, ": loss must be one of cross-entropy, mse, got"),
        ("train", {"data": "d.npz", "layers": "4,3", "monitor": "test.loss"}, ": monitor needs patience"),
        ("train", {"data": "nowhere.npz", "layers": "4,3"}, "cannot read nowhere.npz: No such file or directory"),
        ("predict", {"name": "x"}, "pass either rows or data"),
        ("predict", {"name": "x", "rows": [[1], [1, 2]]}, "rows: "),
        ("predict", {"name": "x", "rows": [[1]] * 101}, "at most 100 items"),
        ("list_jobs", {"limit": 51}, "less than or equal to 50"),
        ("watch", {"name": "x", "seconds": 51}, "less than or equal to 50"),
        ("compare", {"names": ["x"] * 21}, "at most 20 items"),
    ],
)
def test_an_error_is_a_tool_error_with_the_message_of_the_sdk(scripted, call, tool, arguments, message):
    scripted.answer("GetJob", lambda request: status(StatusCode.NOT_FOUND, f"no job has the name {request.name!r}"))
    with pytest.raises(ToolError) as caught:
        call(tool, **arguments)
    assert message in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_long_message_is_cut(call, tmp_path):
    (tmp_path / "d.csv").write_text(",".join(f"column{number}" for number in range(1000)) + "\n")
    with pytest.raises(ToolError) as caught:
        call("train", data=str(tmp_path / "d.csv"), layers="4,3", target="x")
    assert "target must name a column" in str(caught.value)
    assert len(str(caught.value)) < 1100


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(mcp, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["gradwire", "mcp", "--at", "localhost:1"])
    with pytest.raises(SystemExit) as ended:
        main.app()
    expected = "gradwire: gradwire mcp needs the package mcp. Install it with: pip install 'gradwire[mcp]'\n"
    assert (ended.value.code, capsys.readouterr().err) == (1, expected)
