"""Two servers on one Postgres and one Ray cluster: both serve, one schedules, and the other takes over."""

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

MOST_TAKEOVER_SECONDS = 10


@pytest.fixture(scope="module")
def deployment():
    """A database, a cluster, and how to start a server on them."""
    if not PROGRAMS:
        pytest.skip("Postgres is not there: apt-get install postgresql")
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
    """A server that schedules, and one that waits for its turn."""
    with deployment("one") as first, deployment("two") as second:
        yield first, second


def other_takes_over_after(pair, name, fault):
    """Run a job, let the fault come over the first server; return how long it was until the next epoch."""
    first, second = pair
    with gw.Client(second.address) as client:
        job = submit(client, name)
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 20:
                fault(first.process)
                began = time.monotonic()
            if len(seen) == 20 + 200:  # More than can have been on its way already.
                seconds = time.monotonic() - began
        assert seen == list(range(1, EPOCHS + 1))
        assert job.refresh().state == "SUCCEEDED"
        assert {event.attempt for event in job.events()} <= {0, 1}, "the worker went on in the same attempt"
    assert "goes on in attempt 1" in second.log.read_text()
    return seconds


def test_both_serve_and_either_stops_what_runs(pair):
    first, second = pair
    with gw.Client(first.address) as here, gw.Client(second.address) as there:
        assert "schedules; this server serves, and waits for its turn" in second.log.read_text()
        job = submit(there, "both-serve", epochs=60)
        assert [e.sequence for e in here.job(job.name).events()] == [e.sequence for e in job.events()]
        with pytest.raises(gw.AlreadyExistsError):
            submit(here, "both-serve")

        running = submit(there, "stopped-from-afar", epochs=100_000)
        next(iter(running.epochs()))
        began = time.monotonic()
        running.cancel()
        after = submit(here, "after", epochs=1)
        after.result()
        assert time.monotonic() - began < 5
        assert running.refresh().state == "CANCELLED"


def test_a_killed_scheduler_is_replaced_in_time(pair):
    assert other_takes_over_after(pair, "killed", lambda process: process.kill()) < MOST_TAKEOVER_SECONDS


def test_one_that_goes_hands_over_at_once(pair):
    def go(process):
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    assert other_takes_over_after(pair, "told-to-go", go) < 5


def test_one_that_stood_still_writes_nothing_more_and_serves_again(pair):
    first, second = pair
    stopped = []

    def stop(process):
        process.send_signal(signal.SIGSTOP)
        stopped.append(process)

    assert other_takes_over_after(pair, "stood-still", stop) < MOST_TAKEOVER_SECONDS
    stopped[0].send_signal(signal.SIGCONT)
    with gw.Client(first.address) as client:
        job = submit(client, "from-the-one-that-stood-still", epochs=20)
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 21))
    log = first.log.read_text()
    assert "this server does not schedule any more" in log
    assert "Traceback" not in log + second.log.read_text()


def test_a_server_with_other_blobs_is_refused(deployment, tmp_path):
    with pytest.raises(gw.UnavailableError, match="all servers on a database share one"):
        deployment("three", f"--blobs=file://{tmp_path}").start()
