"""Two servers that share Postgres and a Ray cluster. Both serve clients, one schedules, and the other can take over."""

import contextlib
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from cluster import Cluster
from long_job import EPOCHS, submit
from postgres import PROGRAMS, Postgres

import gradwire as gw

MAX_TAKEOVER_SECONDS = 10


@pytest.fixture(scope="module")
def deployment():
    """A function that creates servers, which share a database and a cluster."""
    if not PROGRAMS:
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="several-", dir="/tmp"))
        folder.chmod(0o755)
        stack.callback(shutil.rmtree, folder)
        (folder / "pg").mkdir()
        postgres = Postgres(folder / "pg")
        postgres.start()
        stack.callback(postgres.stop)
        cluster = Cluster(folder / "ray")
        stack.callback(cluster.kill)

        def server(name, *options):
            shared = (f"--store={postgres.url}", f"--blobs=file://{folder / 'blobs'}", f"--ray={cluster.address}")
            return gw.LocalServer(*shared, *options, data=folder / name, env=cluster.environment)

        yield server


@pytest.fixture
def pair(deployment):
    """Two running servers. The first one schedules."""
    with deployment("one") as first, deployment("two") as second:
        yield first, second


def other_takes_over_after(pair, name, fault):
    """Run a job, cause a fault in the first server, and return the seconds until new epochs arrive."""
    first, second = pair
    with gw.Client(second.address) as client:
        job = submit(client, name)
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                fault(first.process)
                began = time.monotonic()
            if len(seen) == 20 + 200:  # This is more than could have been in transit at the time of the fault.
                seconds = time.monotonic() - began
        assert seen == list(range(1, EPOCHS + 1))
        assert job.refresh().state == "SUCCEEDED"
        assert {event.attempt for event in job.events()} <= {0, 1}, "the worker continued in the same attempt"
    return seconds


def test_both_servers_serve_and_either_can_cancel_a_job(pair):
    first, second = pair
    with gw.Client(first.address) as here, gw.Client(second.address) as there:
        job = submit(there, "both-serve", epochs=60)
        assert [e.sequence for e in here.jobs.get(job.name).events()] == [e.sequence for e in job.events()]
        with pytest.raises(gw.AlreadyExistsError):
            submit(here, "both-serve")

        running = submit(there, "cancelled-from-the-other", epochs=100_000)
        next(iter(running.epochs()))
        began = time.monotonic()
        running.cancel()
        after = submit(here, "after", epochs=1)
        after.result()
        assert time.monotonic() - began < 5
        assert running.refresh().state == "CANCELLED"


def test_a_killed_scheduler_is_replaced_within_seconds(pair):
    assert other_takes_over_after(pair, "killed", lambda process: process.kill()) < MAX_TAKEOVER_SECONDS


def test_a_scheduler_that_is_stopped_hands_over_at_once(pair):
    def stop(process):
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    assert other_takes_over_after(pair, "told-to-stop", stop) < 5


def test_a_scheduler_that_was_frozen_writes_nothing_more_and_serves_again(pair):
    first, second = pair
    stopped = []

    def stop(process):
        process.send_signal(signal.SIGSTOP)
        stopped.append(process)

    assert other_takes_over_after(pair, "frozen", stop) < MAX_TAKEOVER_SECONDS
    stopped[0].send_signal(signal.SIGCONT)
    with gw.Client(first.address) as client:
        job = submit(client, "from-the-frozen-one", epochs=20)
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 21))
    assert "Traceback" not in first.log.read_text() + second.log.read_text()


def test_a_server_with_other_blobs_is_refused(deployment, tmp_path):
    with pytest.raises(gw.UnavailableError, match="blobs"):
        deployment("three", f"--blobs=file://{tmp_path}").start()
