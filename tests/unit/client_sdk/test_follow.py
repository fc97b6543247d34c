"""Following the logs of several jobs at once, and the reason why a job waits."""

import io
import threading

import pytest
from epochs import epoch
from grpc import StatusCode
from rich.console import Console
from scripted_server import status

import gradwire as gw
from gradwire import _follow
from gradwire._display import Display
from gradwire._follow import follow
from gradwire_engine.spec.messages import epoch_message
from gradwire_proto.v1.training_service_pb2 import Event, Job, ListWorkersResponse, QueuedJob, WatchJobResponse

QUEUED, STARTING, RUNNING, SUCCEEDED = 1, 2, 3, 5


def event(sequence, state=None, number=None):
    if number is not None:
        return Event(sequence=sequence, epoch=epoch_message(epoch(number, 1 / number)))
    return Event(sequence=sequence, state_change={"state": state})


LOG = [
    event(1, QUEUED),
    event(2, STARTING),
    event(3, RUNNING),
    event(4, number=1),
    event(5, number=2),
    event(6, SUCCEEDED),
]


@pytest.fixture
def client(scripted, monkeypatch):
    monkeypatch.setattr(_follow, "_FIRST_ASK_SECONDS", 0.0)
    monkeypatch.setattr(_follow, "_ASK_SECONDS", 0.01)
    scripted.answer("GetJob", lambda request: Job(name=request.name, epochs=2, state=QUEUED))
    scripted.answer("WatchJob", lambda request: iter([WatchJobResponse(events=LOG)]))
    with gw.Client(scripted.address) as connected:
        yield connected


def test_the_events_of_each_job_arrive_in_order_until_all_have_ended(client):
    jobs = [client.jobs.get(name) for name in ("a", "b", "c")]
    updates = list(follow(jobs))
    for index in range(3):
        assert [each.event.sequence for each in updates if each.job == index] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("queued", "length", "reason"),
    [
        (("y", "x", "z"), 3, "waits: reason of x"),
        (("y", "z"), 150, "waits in a queue of 150 jobs"),
        ((), 0, ""),
    ],
)
def test_a_queued_job_says_why_it_waits_until_it_runs(scripted, client, queued, length, reason):
    started = threading.Event()

    def watch(request):
        yield WatchJobResponse(events=LOG[:1])
        assert started.wait(30)
        yield WatchJobResponse(events=LOG[1:])

    def workers(_request):
        jobs = [QueuedJob(name=f"jobs/{name}", reason=f"reason of {name}") for name in queued]
        return ListWorkersResponse(queued_jobs=jobs, queue_length=length)

    scripted.answer("WatchJob", watch)
    scripted.answer("ListWorkers", workers)
    reasons = []
    for update in follow([client.jobs.get("x")]):
        if update.waiting is not None:
            reasons.append(update.waiting)
            started.set()
    assert reasons[0] == reason


def test_a_server_that_does_not_say_why_is_no_error(scripted, client):
    asked = threading.Event()

    def watch(request):
        yield WatchJobResponse(events=LOG[:1])
        assert asked.wait(30)
        yield WatchJobResponse(events=LOG[1:])

    def workers(_request):
        asked.set()
        return status(StatusCode.INTERNAL, "a defect")

    scripted.answer("WatchJob", watch)
    scripted.answer("ListWorkers", workers)
    assert [each.event.sequence for each in follow([client.jobs.get("x")])] == [1, 2, 3, 4, 5, 6]


def test_an_error_of_one_watch_is_raised(scripted, client):
    def watch(request):
        if request.name == "jobs/b":
            yield status(StatusCode.NOT_FOUND, "no job b")
        yield WatchJobResponse(events=LOG)

    scripted.answer("WatchJob", watch)
    with pytest.raises(gw.NotFoundError, match="no job b"):
        list(follow([client.jobs.get("a"), client.jobs.get("b")]))


@pytest.mark.parametrize("terminal", [False, True])
def test_a_display_shows_several_jobs_and_yields_their_epochs(client, terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    jobs = [client.jobs.get(name) for name in ("a", "b")]
    with Display(shown=True, console=console) as display:
        seen = [(job.name, each.epoch) for job, each in display.follow(*jobs)]
    assert sorted(seen) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    output = console.file.getvalue()
    assert "a: 2 epochs in " in output
    if terminal:
        assert "SUCCEEDED" in output
    else:
        assert "a: epoch 2  train loss 0.5000" in output


def test_a_display_that_is_not_shown_reads_only_the_epochs(client):
    with Display(shown=False) as display:
        assert [each.epoch for _, each in display.follow(client.jobs.get("a"))] == [1, 2]


def test_watch_shows_jobs_until_they_end(client, capsys):
    gw.watch(client.jobs.get("a"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["epoch 1", "epoch 2"]
    assert lines[2].startswith("2 epochs in ")
    for wrong in ((), ("a",)):
        with pytest.raises(gw.InvalidArgumentError, match="takes one or more jobs"):
            gw.watch(*wrong)
