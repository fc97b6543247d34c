"""Starting, stopping, crashing and restarting servers, their tokens, and interrupted clients."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from cluster import Cluster, workers_below

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire_proto.v1.training_service_pb2 import WatchJobRequest
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub


def serve(*options, env=None):
    """Run a server that is expected to fail at startup, and return its exit code and output."""
    command = [sys.executable, "-m", "gradwire_server", *options]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env={**os.environ, **(env or {})}
    )
    return result.returncode, result.stdout + result.stderr


def small_job(client, epochs=2, name=None, **changes):
    gw.seed(0)
    model = Sequential(Linear(4, 8), ReLU(), Linear(8, 3))
    X, y = np.random.default_rng(0).random((200, 4)), np.arange(200) % 3
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.1), "epochs": epochs, "batch_size": 10}
    return client.jobs.submit(model, (X, y), **(arguments | changes), name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host=0.0.0.0"], "0.0.0.0 without a token"),
        (["--port=99999"], "--port (GRADWIRE_PORT)"),
        (["--cpus-per-job=0"], "--cpus-per-job"),
        (["--token-file=/nonexistent/token"], "--token-file"),
        (["--publish=0.0.0.0", "--make-token"], "GRADWIRE_PUBLISH"),
        (["--tls-cert=/nonexistent"], "GRADWIRE_TLS_CERT, GRADWIRE_TLS_KEY"),
        (
            ["--tls-cert=/nonexistent", "--tls-key=/nonexistent"],
            "/nonexistent",
        ),
        (["--data=/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_server_that_cannot_start_says_what_to_change(tmp_path, options, message):
    code, output = serve(f"--data={tmp_path}", *options)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


def test_an_invalid_environment_variable_is_named(tmp_path):
    for variable, value in (("GRADWIRE_PORT", "many"), ("GRADWIRE_CPUS_PER_JOB", "0"), ("GRADWIRE_PLAN", "x")):
        code, output = serve(f"--data={tmp_path}", env={variable: value})
        assert code == 2
        assert variable in output


def test_a_data_folder_that_is_damaged_or_newer_is_left_as_it_is(tmp_path):
    file = tmp_path / "gradwire.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE schema (version INTEGER)")
        connection.execute("INSERT INTO schema VALUES (99)")
        connection.commit()
    before = file.read_bytes()
    code, output = serve(f"--data={tmp_path}", "--port=0")
    assert code == 2
    assert "schema 99" in output
    assert file.read_bytes() == before
    file.write_bytes(b"not a database, but something that somebody may want back" * 100)
    code, output = serve(f"--data={tmp_path}", "--port=0")
    assert code == 2
    assert "not a database" in output
    assert file.read_bytes().startswith(b"not a database")


def test_a_port_in_use_is_named(server, tmp_path):
    port = server.address.rpartition(":")[2]
    code, output = serve(f"--data={tmp_path}", f"--port={port}")
    assert code == 2
    assert f"127.0.0.1:{port}" in output


def test_a_second_server_on_a_data_folder_names_the_first(server):
    code, output = serve(f"--data={server.data}", "--port=0")
    assert code == 2
    assert str(server.process.pid) in output


def test_a_cluster_that_does_not_answer_is_named(tmp_path):
    code, output = serve(
        f"--data={tmp_path}", "--port=0", "--ray=127.0.0.1:1", env={"RAY_gcs_server_request_timeout_seconds": "2"}
    )
    assert code == 2
    assert "127.0.0.1:1" in output


@pytest.fixture
def cluster():
    """A Ray cluster that requires a token, in a folder with a short path, because Unix sockets need one."""
    with tempfile.TemporaryDirectory(prefix="serving-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        running = Cluster(Path(folder), token="a" * 64)
        yield running
        running.kill()


def test_a_server_joins_an_existing_cluster_and_leaves_it_running(cluster):
    address, env = cluster.address, cluster.environment
    for _ in range(2):
        with gw.LocalServer(f"--ray={address}", env=env) as server, gw.Client(server.address) as client:
            assert len(small_job(client).result().epochs) == 2


def test_a_restarted_server_takes_over_its_workers_and_continues_the_same_attempt(cluster, tmp_path):
    address, env = cluster.address, cluster.environment
    server = gw.LocalServer(f"--ray={address}", data=tmp_path, env=env)
    server.start()
    with gw.Client(server.address) as client:
        job = small_job(client, epochs=3000, name="taken-over")
        seen = [epoch.epoch for epoch, _ in zip(job.epochs(), range(20), strict=False)]
    server.process.kill()
    server.process.wait()
    with (
        gw.LocalServer(f"--ray={address}", data=tmp_path, env=env) as following,
        gw.Client(following.address) as client,
    ):
        job = client.jobs.get("taken-over")
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 3001))
        assert job.refresh().attempt == 1
        states = [event.state for event in job.events() if event.state]
        assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    assert seen == list(range(1, 21))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:50051"])
def test_a_missing_server_is_named_within_seconds(address):
    started = time.monotonic()
    with gw.Client(address) as client, pytest.raises(gw.UnavailableError, match=address):
        client.jobs.list()
    # The client's own limit is 3 s. Without it, the client would try for as long as the server is down.
    assert time.monotonic() - started < 20


def test_a_server_that_never_answers_is_named_within_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with gw.Client(address) as client, pytest.raises(gw.UnavailableError, match=address):
            client.jobs.list()


def test_a_server_accepts_its_token_and_never_logs_tokens():
    with gw.LocalServer("--host=0.0.0.0", env={"GRADWIRE_TOKEN": "open-sesame"}) as server:
        address = "127.0.0.1:" + server.address.rpartition(":")[2]
        for token in (None, "wrong"):
            with gw.Client(address, token=token) as client, pytest.raises(gw.UnauthenticatedError, match="token"):
                client.jobs.list()
        with gw.Client(address, token="open-sesame") as client:
            assert small_job(client).result().epochs
        assert "open-sesame" not in server.log.read_text()
        assert "wrong" not in server.log.read_text()


def test_sigterm_shuts_a_server_down_cleanly_and_leaves_no_process():
    server = gw.LocalServer()
    server.start()
    process = psutil.Process(server.process.pid)
    family = [process, *process.children(recursive=True)]
    with gw.Client(server.address) as client:
        small_job(client, epochs=10**6, evaluate_every=1000)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, "in order, not by the signal"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
    server.stop()


def test_a_restarted_server_continues_its_jobs_with_bit_identical_results(tmp_path):
    """The watcher sees every epoch exactly once, and the weights equal those of an uninterrupted run."""
    epochs = 3000  # The job is long enough to still be running when the server is killed.
    port = free_port()
    with gw.LocalServer(f"--port={port}", data=tmp_path / "data") as server, gw.Client(server.address) as client:
        undisturbed = small_job(client, epochs=epochs, name="undisturbed")
        undisturbed.result()
        expected = client.models.get("undisturbed").weights_sha256

        slow = small_job(client, epochs=epochs, name="disturbed", batch_size=1)
        small_job(client, epochs=epochs, name="twin", batch_size=1)
        stream = slow.epochs()
        seen = [next(stream).epoch for _ in range(20)]
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        server.start()
        seen += [epoch.epoch for epoch in stream]
        assert seen == list(range(1, epochs + 1))
        client.jobs.get("twin").result()
        assert client.models.get("disturbed").weights_sha256 == client.models.get("twin").weights_sha256 != expected
        events = list(slow.events())
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert any(event.reason == "SERVER_RESTARTED" for event in events)
        assert not any(event.reason == "NOT_DETERMINISTIC" for event in events)


def test_a_killed_worker_is_replaced_and_the_results_are_bit_identical(client, server):
    epochs = 3000  # The job is long enough to still be running when its worker is killed.
    expected = small_job(client, epochs=epochs, batch_size=1)
    expected.result()
    job = small_job(client, epochs=epochs, batch_size=1)
    stream = job.epochs()
    seen = [next(stream).epoch for _ in range(10)]
    for worker in workers_below(server.process.pid):
        worker.kill()
    seen += [epoch.epoch for epoch in stream]
    assert seen == list(range(1, epochs + 1))
    job.result()
    assert client.models.get(job.name).weights_sha256 == client.models.get(expected.name).weights_sha256
    assert job.info.attempt == 2
    assert any(event.reason == "WORKER_LOST" for event in job.events())


def test_a_worker_that_is_killed_after_the_best_epoch_changes_neither_the_decision_nor_the_model(client, server):
    # No later epoch is this much better than the first, and the job does not end before its worker is killed.
    stopping = gw.EarlyStopping(monitor="train.loss", patience=2500, min_delta=100.0)
    arguments = {"epochs": 4000, "batch_size": 1, "early_stopping": stopping, "keep": "every:1000"}
    expected = small_job(client, **arguments)
    expected.result()
    job = small_job(client, **arguments)
    stream = job.epochs()
    for _ in range(10):
        next(stream)
    for worker in workers_below(server.process.pid):
        worker.kill()
    job.result()
    assert job.info.attempt == 2
    for info in (expected.info, job.info):
        assert (info.stop_reason, info.best_epoch.epoch, info.epochs_done) == ("EARLY_STOPPING", 1, 2501)
        assert info.kept_epochs == (1, 1000, 2000, 2501)
    for epoch in (None, 1000, 2000, 2501):
        digests = {client.models.get(each.name, epoch).weights_sha256 for each in (expected, job)}
        assert len(digests) == 1, epoch


def test_a_job_that_kills_its_workers_fails_with_their_last_output_and_others_continue(client, server):
    rng = np.random.default_rng(0)
    model = gw.Sequential(gw.Linear(64, 1500), gw.ReLU(), gw.Linear(1500, 5))
    job = client.jobs.submit(
        model,
        (rng.random((100_000, 64)), rng.integers(0, 5, 100_000)),
        loss=gw.CrossEntropy(),
        optimizer=gw.SGD(model, lr=0.01),
        epochs=2,
        batch_size=8,
    )
    for event in job.events():
        if event.state == "RUNNING":  # The first epoch takes much longer than killing the worker.
            for worker in workers_below(server.process.pid):
                worker.send_signal(signal.SIGSEGV)
    assert job.refresh().attempt == 3
    with pytest.raises(gw.JobFailedError, match="3 workers") as caught:
        job.result()
    assert caught.value.reason == "WORKER_LOST"
    assert "Fatal Python error: Segmentation fault" in str(caught.value), str(caught.value)
    assert small_job(client).result().epochs


def test_a_watcher_that_stops_reading_does_not_delay_others(client, server):
    with grpc.insecure_channel(server.address) as channel:
        job = small_job(client, epochs=20_000, evaluate_every=20_000)
        slow = TrainingServiceStub(channel).WatchJob(WatchJobRequest(name=f"jobs/{job.name}"))
        first = next(slow).events
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 20_001))
        rest = [event.sequence for response in slow for event in response.events]
    assert [*(event.sequence for event in first), *rest] == list(range(1, len(first) + len(rest) + 1))


def test_ctrl_c_in_fit_leaves_the_job_running_and_names_the_commands_for_it(server, client):
    # Tests can run in the background. Background processes ignore SIGINT, and their children inherit this.
    script = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np, gradwire as gw
from gradwire import *
model = Sequential(Linear(4, 3))
gw.fit(model, (np.random.rand(100, 4), np.arange(100) % 3), loss=CrossEntropy(), optimizer=SGD(model), epochs=10**6,
       evaluate_every=1000, name="interrupted", at="{server.address}", progress=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=280)
    assert "The job interrupted continues at" in errors
    assert f"gradwire jobs cancel interrupted --at {server.address}" in errors
    job = client.jobs.get("interrupted")
    assert job.info.state == "RUNNING"
    job.cancel()


def test_an_interrupted_upload_continues_where_it_was(server, client):
    """A proxy cuts the first connection during the 24 MB upload, when less than 5 MB remain."""
    data = np.random.default_rng(5).random((20_000, 300)).astype(np.float32)
    with (
        CuttingProxy(server.address, cut_after=data.nbytes - 5_000_000) as proxy,
        gw.Client(proxy.address) as through_proxy,
    ):
        model = Sequential(Linear(300, 2))
        sent = []
        job = through_proxy.jobs.submit(
            model,
            (data, np.arange(20_000) % 2),
            loss=CrossEntropy(),
            optimizer=SGD(model),
            epochs=1,
            on_upload_progress=lambda done, total: sent.append((done, total)),
        )
        assert len(job.result().epochs) == 1
    assert proxy.cuts == 1
    done, totals = zip(*sent, strict=True)
    assert set(totals) == {max(done)}, "no byte that had arrived is counted again"
    assert data.nbytes <= totals[0] == done[-1]
    assert proxy.forwarded < 1.5 * data.nbytes, "what was on its way is sent again, and no more"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class CuttingProxy:
    """Forwards connections to a server, and cuts the first connection after a number of bytes from the client."""

    def __init__(self, target, cut_after):
        self.target = target
        self.cut_after = cut_after
        self.cuts = 0
        self.forwarded = 0

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host, port = self.target.split(":")
            upstream = socket.create_connection((host, int(port)))
            threading.Thread(target=self._pump, args=(client, upstream, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, False), daemon=True).start()

    def _pump(self, source, sink, upload):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                if upload:
                    self.forwarded += len(data)
                    if self.cuts == 0 and self.forwarded > self.cut_after:
                        self.cuts += 1
                        break
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
