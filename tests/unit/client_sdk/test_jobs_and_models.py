"""client.jobs, client.models and job handles, tested against a server with scripted responses."""

import asyncio
import gc
import hashlib
from itertools import islice

import numpy as np
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode as Code
from scripted_server import status
from small import X, Y, stack

import gradwire as gw
from gradwire import SGD, CrossEntropy, FileError, InvalidArgumentError
from gradwire._access import Access
from gradwire._model_files import save
from gradwire._transport import Transport
from gradwire._watch import watch
from gradwire_engine.spec.tensors import wire_bytes
from gradwire_engine.spec.tracing import trace
from gradwire_proto.v1.model_service_pb2 import DownloadModelResponse, FileHeader, ListModelsResponse, Model
from gradwire_proto.v1.tensor_service_pb2 import FindMissingTensorsResponse
from gradwire_proto.v1.training_service_pb2 import (
    Event,
    Job,
    ListJobsResponse,
    WatchJobResponse,
)

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = 1, 3, 5, 6, 7


def state_event(sequence, state, **more):
    return Event(sequence=sequence, state_change={"state": state, **more})


def epoch_event(sequence, epoch, loss=1.0):
    return Event(sequence=sequence, epoch={"epoch": epoch, "running_loss": loss, "train": {"loss": loss}})


# Three epochs, and a checkpoint before the third epoch.
LOG = [
    state_event(1, QUEUED),
    state_event(2, RUNNING),
    epoch_event(3, 1),
    epoch_event(4, 2),
    Event(sequence=5, checkpoint={"epoch": 2}),
    epoch_event(6, 3),
]


@pytest.fixture
def client(scripted):
    with gw.Client(scripted.address, max_retries=0) as connected:
        yield connected


def serve_job(scripted, last, **fields):
    """Serve a job "x" that has three epochs and ends with the given event."""
    log = [*LOG, last]
    job = Job(
        name="jobs/x", state=last.state_change.state, epochs=3, architecture="4-3", last_sequence=len(log),
        last_epoch=LOG[-1].epoch, **fields,
    )  # fmt: skip
    scripted.answer("GetJob", lambda request: job)

    def watch(request):
        events = log[request.after_sequence :]
        yield from [WatchJobResponse(events=events)] if events else []

    scripted.answer("WatchJob", watch)
    return job


def watches(scripted):
    return [request.after_sequence for request in scripted.requests if hasattr(request, "after_sequence")]


def test_absent_values_are_none(scripted, client):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=QUEUED, epochs=3, architecture="4-3"))
    info = client.jobs.get("x").info
    for absent in (info.model, info.error, info.error_reason, info.plan, info.last_epoch, info.started, info.ended):
        assert absent is None
    assert (info.epochs_done, info.labels) == (0, {})


def test_reprs_name_the_object_and_its_progress(scripted, client):
    job = serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"), model="models/x")
    handle = client.jobs.get("x")
    assert repr(handle) == "Job('x', SUCCEEDED, epoch 3/3)"
    assert repr(handle._async) == "AsyncJob('x', SUCCEEDED, epoch 3/3)"
    assert repr(handle.info) == "JobInfo('x', SUCCEEDED, epoch 3/3)"
    model = Model(name="models/x", architecture="4-3", weights={"shape": [15]}, epoch=job.last_epoch)
    scripted.answer("GetModel", lambda request: model)
    assert repr(client.models.get("x")) == "ModelInfo('x', 4-3, 15 parameters, train loss 1)"


def test_states_and_kinds_of_a_newer_server_are_unknown(scripted, client):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=99))
    assert client.jobs.get("x").status == "UNKNOWN"


def test_a_list_shows_the_basic_view_and_reads_all_pages(scripted, client):
    jobs = [Job(name=f"jobs/{number}", epochs=3, architecture="4-3", labels={"team": "a"}) for number in range(3)]

    def page(request):
        start = int(request.page_token or 0)
        following = str(start + 2) if start + 2 < len(jobs) else ""
        return ListJobsResponse(jobs=jobs[start : start + 2], next_page_token=following)

    scripted.answer("ListJobs", page)
    found = client.jobs.list()
    assert [job.name for job in found] == ["0", "1", "2"]
    assert (found[0].info.architecture, found[0].info.epochs, found[0].info.labels) == ("4-3", 3, {"team": "a"})
    assert scripted.requests[0].filter == ""
    scripted.answer("ListModels", lambda request: ListModelsResponse())
    assert client.models.list("labels : team", limit=7) == []
    assert (scripted.requests[-1].filter, scripted.requests[-1].page_size) == ("labels : team", 7)


def test_a_limit_below_one_is_refused(client):
    with pytest.raises(InvalidArgumentError, match="limit: must be at least 1"):
        client.jobs.list(limit=0)


def test_deleting_something_that_does_not_exist_is_allowed(scripted, client):
    scripted.answer("DeleteJob", lambda request: Empty())
    scripted.answer("DeleteModel", lambda request: Empty())
    client.jobs.delete("x")
    client.models.delete("x")
    assert [(request.name, request.allow_missing) for request in scripted.requests] == [
        ("jobs/x", True),
        ("models/x", True),
    ]


@pytest.mark.parametrize(("after", "start"), [(0, 0), (1, 1), (2, 2), (3, 3), (10**6, 7)])
def test_reading_epochs_after_a_given_one_starts_near_it_in_the_log(scripted, client, after, start):
    serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"))
    assert [epoch.epoch for epoch in client.jobs.get("x").epochs(after=after)] == [1, 2, 3][after:]
    assert watches(scripted) == [start]


@pytest.mark.parametrize("read", ["epochs", "events"])
@pytest.mark.parametrize(
    ("after", "message"), [(-5, "after: must be at least 0, got -5"), ("1", "after: must be a whole number, got '1'")]
)
def test_reading_starts_at_a_number_of_at_least_0(scripted, client, read, after, message):
    serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"))
    with pytest.raises(InvalidArgumentError, match=message):
        next(getattr(client.jobs.get("x"), read)(after=after))
    assert watches(scripted) == []


def test_reading_epochs_of_a_continued_job_starts_near_the_given_one(scripted, client):
    log = [
        state_event(1, QUEUED),
        *(epoch_event(number, 98 + number) for number in range(2, 12)),
        state_event(12, FAILED),
    ]
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", epochs=109, initial_epoch=99, last_sequence=12))
    scripted.answer("WatchJob", lambda request: iter([WatchJobResponse(events=log[request.after_sequence :])]))
    assert [epoch.epoch for epoch in client.jobs.get("x").epochs(after=105)] == [106, 107, 108, 109]
    assert watches(scripted) == [6]


def test_a_watch_that_breaks_continues_after_the_last_event(scripted, client):
    serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"))
    log = [*LOG, state_event(7, SUCCEEDED)]

    def broken(request):
        yield WatchJobResponse(events=log[request.after_sequence : request.after_sequence + 2])
        yield status(Code.UNAVAILABLE, "shutting down", reason="SHUTTING_DOWN", retry_after=0.01)

    scripted.answer("WatchJob", broken)
    assert [event.sequence for event in client.jobs.get("x").events()] == [1, 2, 3, 4, 5, 6, 7]
    assert watches(scripted) == [0, 2, 4, 6]


def test_a_watch_waits_before_each_new_connection(scripted):
    broken = iter([status(Code.UNAVAILABLE, "away")] * 3 + [status(Code.UNAVAILABLE, "", reason="X", retry_after=4)])
    end = WatchJobResponse(events=[state_event(1, SUCCEEDED)])
    scripted.answer("WatchJob", lambda request: iter([next(broken, end)]))
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    async def scenario():
        transport = Transport(scripted.address, Access(), sleep=sleep)
        events = [event async for batch in watch(transport, "jobs/x", 0) for event in batch]
        await transport.close()
        return events

    assert [event.sequence for event in asyncio.run(scenario())] == [1]
    assert waits == [0.1, 0.25, pytest.approx(0.625), 4]


def test_a_failed_job_raises_an_error_with_its_reason_and_history(scripted, client):
    error = {"reason": 1, "message": "the loss is not finite"}
    serve_job(scripted, state_event(7, FAILED, error=error), error=error, spec={"seed": 5})
    job = client.jobs.get("x")
    with pytest.raises(gw.JobFailedError, match="job 'x' failed: the loss is not finite") as caught:
        job.result()
    assert (caught.value.job, caught.value.reason) == ("x", "LOSS_NOT_FINITE")
    assert [epoch.epoch for epoch in caught.value.history] == [1, 2, 3]
    assert caught.value.history.seed == 5
    assert (job.info.error, job.info.error_reason) == ("the loss is not finite", "LOSS_NOT_FINITE")
    assert [event.reason for event in job.events() if event.reason] == ["LOSS_NOT_FINITE"]


def test_a_cancelled_job_raises_an_error_with_its_history(scripted, client):
    serve_job(scripted, state_event(7, CANCELLED))
    with pytest.raises(gw.JobCancelledError, match="after 3 of 3 epochs") as caught:
        client.jobs.get("x").result()
    assert caught.value.job == "x"
    assert len(caught.value.history) == 3


def test_waiting_ends_after_the_timeout_and_the_job_continues(scripted, client):
    scripted.answer("GetJob", lambda request: Job(name="jobs/x", state=RUNNING, epochs=3))

    def endless(request):
        yield WatchJobResponse(events=LOG[:3])
        yield from iter(lambda: status(Code.UNAVAILABLE, "", reason="SHUTTING_DOWN", retry_after=30), None)

    scripted.answer("WatchJob", endless)
    job = client.jobs.get("x")
    for wait in (job.result, job.wait):
        with pytest.raises(TimeoutError, match=r"job 'x' has not ended after 0\.2 s\. It continues\.") as caught:
            wait(timeout=0.2)
        assert isinstance(caught.value, gw.DeadlineExceededError)


@pytest.mark.parametrize("call", ["wait", "result"])
@pytest.mark.parametrize("timeout", ["a", float("nan"), True])
@pytest.mark.filterwarnings("error")
def test_a_timeout_must_be_a_number(scripted, client, call, timeout):
    serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"))
    with pytest.raises(InvalidArgumentError, match="timeout: must be a number of seconds, or None, got"):
        getattr(client.jobs.get("x"), call)(timeout=timeout)
    gc.collect()  # A coroutine that is not awaited would warn now.


@pytest.mark.parametrize("name", ["", "jobs/"])
def test_an_empty_name_is_refused(scripted, client, name):
    with pytest.raises(InvalidArgumentError, match=f"name: must be the name of a job, got '{name}'"):
        client.jobs.get(name)
    assert scripted.requests == []


def test_wait_returns_the_job_regardless_of_how_it_ended(scripted, client):
    serve_job(scripted, state_event(7, FAILED), error={"message": "why"})
    assert client.jobs.get("x").wait().state == "FAILED"
    assert watches(scripted) == []


class ModelServer:
    """Serves one model as a file. Each download stream breaks after `break_after` bytes."""

    def __init__(self, scripted, tmp_path, break_after=10**9):
        self.model = stack(4, 3)
        self.data = save(self.model, tmp_path / "served.safetensors").read_bytes()
        self.offsets = []
        self._break_after = break_after
        traced = trace(self.model)
        weights = traced.given_weights()
        digest = hashlib.sha256(wire_bytes(weights)).hexdigest()
        message = Model(name="models/x", spec=traced.spec, weights={"shape": weights.shape, "sha256": digest})
        scripted.answer("GetModel", lambda request: message)
        scripted.answer("DownloadModel", self.download)

    def download(self, request):
        self.offsets.append(request.offset)
        digest = hashlib.sha256(self.data).hexdigest()
        yield DownloadModelResponse(header=FileHeader(file_name="x", size_bytes=len(self.data), sha256=digest))
        end = request.offset + self._break_after
        for start in range(request.offset, min(end, len(self.data)), 100):
            yield DownloadModelResponse(chunk=self.data[start : min(start + 100, end)])
        if end < len(self.data):
            yield status(Code.UNAVAILABLE, "shutting down", reason="SHUTTING_DOWN", retry_after=0.01)


def test_a_download_continues_where_it_broke(scripted, tmp_path):
    served = ModelServer(scripted, tmp_path, break_after=150)
    with gw.Client(scripted.address, max_retries=1) as client:
        path = client.models.download("x", tmp_path / "got.safetensors")
        assert np.array_equal(client.models.load("x")(X), served.model(X))
    assert path.read_bytes() == served.data
    assert served.offsets[:3] == [0, 150, 300]
    assert not list(tmp_path.glob("*.part"))


def test_a_download_that_fails_leaves_no_file(scripted, client, tmp_path):
    ModelServer(scripted, tmp_path, break_after=150)
    with pytest.raises(gw.UnavailableError):
        client.models.download("x", tmp_path / "got.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["served.safetensors"]


def test_damaged_downloads_are_refused(scripted, client, tmp_path):
    served = ModelServer(scripted, tmp_path)

    def damaged(request):
        header, *chunks = list(served.download(request))
        yield header
        yield from chunks[:-1]

    scripted.answer("DownloadModel", damaged)
    with pytest.raises(gw.DataLossError, match="arrived damaged"):
        client.models.download("x", tmp_path / "got.safetensors")
    assert not (tmp_path / "got.safetensors").exists()


def test_a_download_with_one_flipped_bit_is_refused(scripted, client, tmp_path):
    served = ModelServer(scripted, tmp_path)
    scripted.answer("DownloadModel", lambda request: _flip_the_last_bit(served.download(request)))
    for receive in (lambda: client.models.download("x", tmp_path / "got.safetensors"), lambda: client.models.load("x")):
        with pytest.raises(gw.DataLossError, match="the file of 'x' arrived damaged"):
            receive()


def _flip_the_last_bit(responses):
    *first, last = responses
    yield from first
    yield DownloadModelResponse(chunk=last.chunk[:-1] + bytes([last.chunk[-1] ^ 1]))


def test_weights_that_do_not_belong_to_the_model_are_refused(scripted, client, tmp_path):
    served = ModelServer(scripted, tmp_path)
    traced = trace(served.model)
    other = Model(name="models/x", spec=traced.spec, weights={"shape": [15], "sha256": "0" * 64})
    scripted.answer("GetModel", lambda request: other)
    with pytest.raises(gw.DataLossError, match="the weights of 'x' arrived damaged"):
        client.models.load("x")


@pytest.mark.parametrize(
    ("name", "format_", "message"),
    [
        ("m.pt", None, r"ends in \.safetensors, \.npz or \.onnx, or pass format="),
        ("m.onnx", "safetensors", "the suffix does not match"),
        ("nowhere/m.onnx", None, "the folder .* does not exist"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_download(client, tmp_path, name, format_, message):
    with pytest.raises(FileError, match=message):
        client.models.download("x", tmp_path / name, format=format_)


@pytest.mark.parametrize(
    ("path", "format_", "sent", "written"),
    [
        ("", None, 1, "x.safetensors"),
        ("", "onnx", 2, "x.onnx"),
        ("m.onnx", None, 2, "m.onnx"),
        ("m.safetensors", None, 1, "m.safetensors"),
        ("m.bin", "onnx", 2, "m.bin"),
    ],
)
def test_the_format_comes_from_the_suffix(scripted, client, tmp_path, path, format_, sent, written):
    ModelServer(scripted, tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert client.models.download("x", folder / path, format=format_) == folder / written
    assert [request.format for request in scripted.requests] == [sent]


def submit(client, **changes):
    model = stack(4, 3)
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model), "epochs": 3}
    return client.jobs.submit(model, (X, Y), **(arguments | changes))


@pytest.fixture
def accepting(scripted):
    scripted.answer("FindMissingTensors", lambda request: FindMissingTensorsResponse())
    scripted.answer("CreateJob", lambda request: Job(name="jobs/x", state=QUEUED, epochs=3))
    return scripted


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"resume_from": "first"}, "continue_job", "jobs/first"),
        ({"resume_from": "jobs/first"}, "continue_job", "jobs/first"),
        ({"initial_model": "first"}, "initial_model", "models/first"),
        ({"initial_model": "models/first"}, "initial_model", "models/first"),
        ({}, None, None),
    ],
)
def test_a_job_starts_from_the_requested_model_or_job(accepting, client, arguments, field, value):
    submit(client, **arguments)
    job = accepting.requests[-1].job
    assert job.WhichOneof("start_from") == field
    assert field is None or getattr(job, field) == value


def test_a_job_continues_from_the_handle_of_another(accepting, client):
    first = submit(client)
    submit(client, resume_from=first)
    assert accepting.requests[-1].job.continue_job == "jobs/x"
    submit(client, resume_from=first.info)
    assert accepting.requests[-1].job.continue_job == "jobs/x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume_from": "a", "initial_model": "b"}, "cannot be used together"),
        ({"resume_from": "models/a"}, "resume_from: must be a job .* use initial_model="),
        ({"initial_model": "jobs/a"}, "initial_model: must be the name of a model.* use resume_from="),
        ({"resume_from": 5}, "resume_from: must be a job or the name of one, got 5"),
        ({"name": 5}, "name: must be a string, got 5"),
        ({"labels": ["a"]}, r"labels: must be a dict of strings, for example .*, got \['a'\]"),
        ({"labels": {"team": 5}}, "labels: must have strings as keys and values, got 'team': 5"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_sent(scripted, client, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        submit(client, **arguments)
    assert scripted.requests == []


def test_name_and_labels_are_sent(accepting, client):
    submit(client, name="digits", labels={"team": "vision"}, seed=None)
    request = accepting.requests[-1]
    assert request.job_id == "digits"
    assert dict(request.job.labels) == {"team": "vision"}
    assert request.job.spec.seed > 0


def test_a_tensor_that_the_server_has_is_not_sent(scripted, client):
    scripted.answer("FindMissingTensors", lambda request: FindMissingTensorsResponse())
    info = client.tensors.upload(X.astype(np.float64))
    assert (info.dtype, info.shape) == ("float32", (30, 4))
    assert client.tensors.missing([info]) == []
    scripted.answer(
        "FindMissingTensors", lambda request: FindMissingTensorsResponse(missing=[{"tensor": request.tensors[0]}])
    )
    assert client.tensors.missing([info]) == [info]


def test_data_that_an_earlier_job_used_is_sent_again_only_if_the_server_has_lost_it(accepting, client):
    def calls():
        names = [type(request).__name__.removesuffix("Request") for request in accepting.requests]
        accepting.requests.clear()
        return names

    submit(client)
    assert calls() == ["FindMissingTensors", "CreateJob"]
    submit(client)
    assert calls() == ["CreateJob"]
    submit(client, test=(X[:5], Y[:5]))
    assert calls() == ["FindMissingTensors", "CreateJob"]
    lost = [status(Code.FAILED_PRECONDITION, "lost", reason="TENSOR_MISSING")]
    accepting.answer("CreateJob", lambda request: lost.pop() if lost else Job(name="jobs/x", state=QUEUED))
    assert submit(client).name == "x"
    first, _, again = accepting.requests
    assert first == again  # The server recognizes the request by its ID.
    assert calls() == ["CreateJob", "FindMissingTensors", "CreateJob"]
    accepting.answer("CreateJob", lambda request: status(Code.FAILED_PRECONDITION, "no", reason="NO_GPU"))
    with pytest.raises(gw.FailedPreconditionError):
        submit(client)
    assert calls() == ["CreateJob"]


def test_the_job_that_comes_with_the_last_event_is_not_requested_again(accepting, client):
    ended = Job(name="jobs/x", state=FAILED, epochs=3, spec={"seed": 5}, error={"message": "why"})
    job = submit(client)
    accepting.answer("GetJob", lambda request: ended)
    accepting.answer("WatchJob", lambda request: iter([WatchJobResponse(events=[state_event(1, FAILED)], job=ended)]))
    accepting.requests.clear()
    assert job.wait().error == "why"
    assert [type(request).__name__ for request in accepting.requests] == ["WatchJobRequest"]
    with pytest.raises(gw.JobFailedError) as caught:
        job.result()
    assert caught.value.history.seed == 5
    # A server of an earlier version does not send the job.
    other = submit(client)
    accepting.answer("WatchJob", lambda request: iter([WatchJobResponse(events=[state_event(1, FAILED)])]))
    accepting.requests.clear()
    assert other.wait().error == "why"
    assert [type(request).__name__ for request in accepting.requests] == ["WatchJobRequest", "GetJobRequest"]


def test_the_async_client_has_the_same_namespaces(accepting):
    serve_job(accepting, state_event(7, FAILED), error={"message": "why"})

    async def scenario():
        async with gw.AsyncClient(accepting.address, max_retries=0) as client:
            model = stack(4, 3)
            job = await client.jobs.submit(model, (X, Y), loss=CrossEntropy(), optimizer=SGD(model))
            seen = [epoch.epoch async for epoch in job.epochs()]
            info = await job.wait()
            return seen, info.state

    assert asyncio.run(scenario()) == ([1, 2, 3], "FAILED")


def test_fit_reads_the_log_once(accepting):
    serve_job(accepting, state_event(7, FAILED), error={"message": "why"})
    model = stack(4, 3)
    with pytest.raises(gw.JobFailedError) as caught:
        gw.fit(model, (X, Y), loss=CrossEntropy(), optimizer=SGD(model), at=accepting.address)
    assert len(caught.value.history) == 3
    assert watches(accepting) == [0]


def test_a_stream_can_be_left_early(scripted, client):
    serve_job(scripted, state_event(7, SUCCEEDED, model="models/x"))
    assert [epoch.epoch for epoch in islice(client.jobs.get("x").epochs(), 2)] == [1, 2]
