"""Two servers that share Postgres and a Ray cluster. Both serve clients, one schedules, and the other can take over."""

import contextlib
import platform
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from cluster import Cluster
from long_job import EPOCHS, submit, submit_endless
from postgres import PROGRAMS, Postgres

import gradwire as gw

# A lease expires after 6 s. The rest is headroom for a machine under load.
MAX_TAKEOVER_SECONDS = 30


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
            shared = (f"--blobs=file://{folder / 'blobs'}", f"--ray={cluster.address}")
            environment = {**cluster.environment, "GRADWIRE_STORE": postgres.url}
            return gw.LocalServer(*shared, *options, data=folder / name, env=environment)

        server.workers = cluster.workers
        server.store = postgres.url
        yield server


@pytest.fixture(scope="module")
def servers(deployment):
    with deployment("one") as first, deployment("two") as second:
        yield first, second


@pytest.fixture
def pair(deployment, servers):
    """The scheduling server and the standby server. A server that the previous test stopped is restarted."""
    for server in servers:
        if server.process.poll() is not None:
            server.start()
    holder, _, _ = lease(deployment)
    return sorted(servers, key=lambda server: not holder.endswith(f" {server.process.pid}"))


def lease(deployment):
    """Return the holder of the lease, its fencing token, and when it expires."""
    with psycopg.connect(deployment.store) as connection:
        return connection.execute("SELECT holder, token, expires FROM lease").fetchone()


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


def test_both_servers_serve_and_either_can_cancel_and_pause_a_job(pair, deployment):
    """Both workers are in an epoch that takes minutes, and the standby server receives the calls."""
    first, second = pair
    with gw.Client(first.address) as here, gw.Client(second.address) as there:
        job = submit(there, "both-serve", epochs=60)
        assert [e.sequence for e in here.jobs.get(job.name).events()] == [e.sequence for e in job.events()]
        with pytest.raises(gw.AlreadyExistsError):
            submit(here, "both-serve")

        cancelled, paused = (submit_endless(there, name) for name in ("cancelled-from-there", "paused-from-there"))
        views = [client.workers() for client in (here, there)]
        assert [(view.complete, view.busy) for view in views] == [(True, 2), (False, 2)]
        for view in views:
            busy = {(each.job, each.attempt, each.device, each.host) for each in view.workers if each.job}
            assert busy == {(job.name, 1, "cpu", platform.node()) for job in (cancelled, paused)}
        assert all(each.host == platform.node() for each in views[0].workers)
        workers = deployment.workers()
        began = time.monotonic()
        cancelled.cancel()
        paused.pause()
        submit(here, "after", epochs=1).result()
        # The workers were told to stop; they were not killed. Without a notification, the scheduling server would find
        # out only after 20 s, by polling.
        assert time.monotonic() - began < 15
        assert deployment.workers() == workers
        assert [job.refresh().state for job in (cancelled, paused)] == ["CANCELLED", "PAUSED"]
        stopped = submit(there, "stopped-from-there", epochs=10**6)
        next(iter(stopped.epochs()))
        stopped.stop()
        assert stopped.wait(60).stop_reason == "REQUESTED"


def test_a_killed_scheduler_is_replaced_within_seconds(pair):
    assert other_takes_over_after(pair, "killed", lambda process: process.kill()) < MAX_TAKEOVER_SECONDS


def test_a_scheduler_that_is_stopped_hands_over_immediately(pair, deployment):
    """The stopped server releases the lease, so that the other server does not have to wait until the lease expires."""

    def stop(process):
        _, before, _ = lease(deployment)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        _, token, expires = lease(deployment)
        assert expires == 0 or token > before, "it released the lease, and perhaps the other server has it already"

    assert other_takes_over_after(pair, "told-to-stop", stop) < MAX_TAKEOVER_SECONDS


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


def test_a_server_with_a_different_blob_store_is_refused(deployment, tmp_path):
    with pytest.raises(gw.UnavailableError, match="blobs"):
        deployment("three", f"--blobs=file://{tmp_path}").start()
