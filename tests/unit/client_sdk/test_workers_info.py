"""The workers and the queue, as the client, a notebook and the command show them."""

import json
import sys

import pytest

import gradwire as gw
from gradwire.cli.main import app
from gradwire_proto.v1.training_service_pb2 import ListWorkersResponse

HOSTILE = "<img src=x>"
WORKERS = [
    {"job": "jobs/digits", "attempt": 2, "device": "cpu", "host": "node1"},
    {"job": "jobs/starts", "attempt": 1},
    {"device": "gpu", "host": "node2"},
]
QUEUE = [{"name": "jobs/waits", "create_time": {"seconds": 1_700_000_000}, "reason": f"busy {HOSTILE}"}]
RESPONSE = ListWorkersResponse(
    workers=WORKERS,
    busy_workers=2,
    idle_workers=1,
    startable_workers=3,
    queued_jobs=QUEUE,
    queue_length=7,
    complete=True,
)


@pytest.fixture
def served(scripted):
    def serve(response):
        scripted.answer("ListWorkers", lambda request: response)
        return scripted.address

    return serve


def test_the_client_describes_the_workers_and_the_queue(served):
    with gw.Client(served(RESPONSE)) as client:
        info = client.workers()
    assert repr(info) == "WorkersInfo(2 busy, 1 idle, 3 can be started, 7 jobs queued)"
    assert info.workers[0] == gw.WorkerInfo("digits", 2, "cpu", "node1")
    assert [each.job for each in info.workers] == ["digits", "starts", None]
    assert (info.queue[0].name, info.queue[0].created.timestamp()) == ("waits", 1_700_000_000)


def test_a_notebook_shows_the_workers_and_the_queue_as_text(served):
    with gw.Client(served(RESPONSE)) as client:
        html = client.workers()._repr_html_()
    assert "busy &lt;img src=x&gt;" in html
    assert HOSTILE not in html
    assert all(text in html for text in ("digits", "idle", "node2", "waits"))


def test_a_server_that_does_not_schedule_says_that_the_idle_workers_are_unknown(served):
    with gw.Client(served(ListWorkersResponse(busy_workers=1))) as client:
        assert repr(client.workers()) == "WorkersInfo(1 busy, others unknown, 0 jobs queued)"


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["gradwire", "workers", *arguments])
    with pytest.raises(SystemExit) as ended:
        app()
    assert not ended.value.code
    return capsys.readouterr()


def test_the_command_prints_a_line_for_each_worker_and_each_queued_job(served, monkeypatch, capsys):
    printed = run(monkeypatch, capsys, "--at", served(RESPONSE))
    assert printed.out.splitlines() == [
        "busy\tdigits\tcpu on node1, attempt 2",
        "busy\tstarts\tattempt 1",
        "idle\t\tgpu on node2",
        f"queued\twaits\tbusy {HOSTILE}",
    ]
    assert printed.err == "2 busy, 1 idle, 3 can be started, 7 jobs queued\n"
    printed = run(monkeypatch, capsys, "--at", served(ListWorkersResponse()))
    assert printed.out == ""
    assert "Only that server knows the idle workers." in printed.err


def test_the_command_prints_json(served, monkeypatch, capsys):
    values = json.loads(run(monkeypatch, capsys, "--json", "--at", served(RESPONSE)).out)
    assert values["workers"][0] == {"job": "digits", "attempt": 2, "device": "cpu", "host": "node1"}
    assert values["queue"][0]["created"] == "2023-11-14T22:13:20+00:00"
    assert (values["busy"], values["idle"], values["startable"], values["queued"]) == (2, 1, 3, 7)
