"""End-to-end tests of docker-compose.yml: training from outside, killed containers, scaling, and restarts.

The tests use docker compose if a Docker daemon is running, and podman-compose otherwise. They must run in order,
because each test depends on the previous ones.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

ROOT = Path(__file__).parents[2]
PROJECT = "gradwire-test"
pytestmark = pytest.mark.timeout(900)


def has_docker() -> bool:
    return (
        bool(shutil.which("docker"))
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


ENGINE = "docker" if has_docker() else "podman"
COMPOSE = ["docker", "compose"] if ENGINE == "docker" else ["podman-compose"]


class Deployment:
    """The containers of the project, with a separate project name and port."""

    def __init__(self) -> None:
        with socket.socket() as grpc_port, socket.socket() as http_port:
            for free in (grpc_port, http_port):
                free.bind(("127.0.0.1", 0))
            self.port, http = (free.getsockname()[1] for free in (grpc_port, http_port))
        self.address = f"127.0.0.1:{self.port}"
        ports = {"GRADWIRE_PORT": str(self.port), "GRADWIRE_HTTP_PORT": str(http)}
        self.environment = {**os.environ, **ports, "GRADWIRE_WORKER_CPUS": "1"}

    def compose(self, *arguments: str, check: bool = True, **environment: str) -> str:
        command = [*COMPOSE, "-p", PROJECT, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env={**self.environment, **environment}, capture_output=True, text=True, check=False
        )
        if check:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def up(self, *options: str) -> float:
        """Start all containers, and return the number of seconds until the server accepts jobs."""
        started = time.monotonic()
        # `make images` or Docker itself builds the images.
        self.compose("up", "-d", *(["--build"] if ENGINE == "docker" else ["--no-build"]), *options)
        self.wait_until_ready()
        return time.monotonic() - started

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 180
        while "SERVING" not in self.in_server("gradwire", "health", "--at", "unix:/tmp/gradwire.sock", check=False):
            assert time.monotonic() < deadline, self.compose("logs", "server", check=False)[-3000:]
            time.sleep(0.5)

    def in_server(self, *command: str, check: bool = True) -> str:
        return self.compose("exec", "-T", "server", *command, check=check)

    @property
    def token(self) -> str:
        return self.in_server("gradwire", "token", "show").strip().splitlines()[-1]

    def client(self) -> gw.Client:
        return gw.Client(self.address, token=self.token)

    def containers(self, service: str) -> list[str]:
        names = subprocess.run(
            [ENGINE, "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True
        ).stdout.split()
        return [
            name for name in names if name.startswith(PROJECT) and service in name.replace("_", "-").split(PROJECT)[1]
        ]

    def kill(self, container: str) -> None:
        subprocess.run([ENGINE, "kill", container], capture_output=True, check=True)


@pytest.fixture(scope="module")
def deployment():
    if shutil.which(COMPOSE[0]) is None:
        pytest.skip("neither docker nor podman-compose is there")
    running = Deployment()
    running.compose("--profile", "demo", "down", "-v", check=False)
    if ENGINE == "podman":
        flags = "--isolation chroot --network host"
        subprocess.run(["make", "images", "ENGINE=podman", f"BUILD_FLAGS={flags}"], cwd=ROOT, check=True)
    print(f"ready after {running.up():.1f} s")
    yield running
    running.compose("--profile", "demo", "down", "-v", check=False)


@pytest.fixture(scope="module")
def long_job():
    """Return a model and data for a few seconds of training, which the tests interrupt in several ways."""
    rng = np.random.default_rng(0)
    X, y = rng.random((20_000, 784), np.float32), rng.integers(0, 10, 20_000)

    def submit(client, name):
        gw.seed(0)
        model = Sequential(Linear(784, 128), ReLU(), Linear(128, 10))
        return client.jobs.submit(
            model, (X, y), loss=CrossEntropy(), optimizer=SGD(model), epochs=150, batch_size=32, name=name
        )

    return submit


@pytest.fixture(scope="module")
def undisturbed(deployment, long_job):
    """The digest of the weights that the long job produces without interruptions."""
    with deployment.client() as client:
        job = long_job(client, "undisturbed")
        assert [epoch.epoch for epoch in job.epochs()] == list(range(1, 151))
        return client.models.get("undisturbed").weights_sha256


def test_the_digits_are_trained_from_outside_through_the_published_port(deployment, digits, model):
    with deployment.client() as client:
        job = client.jobs.submit(
            model,
            digits.train,
            test=digits.test,
            loss=CrossEntropy(),
            optimizer=SGD(model, lr=0.1),
            epochs=5,
            name="outside",
        )
        history = job.result()
        assert history.plan.name == "compiled"
        assert history.epochs[-1].test.accuracy > 0.85
        assert client.models.predict("outside", digits.test[0]).shape == (360, 10)


def test_a_client_without_the_token_is_refused(deployment):
    with gw.Client(deployment.address, token="wrong") as client, pytest.raises(gw.UnauthenticatedError):
        client.jobs.list()


def test_the_demo_trains_on_the_deployment(deployment):
    output = deployment.compose("--profile", "demo", "run", "--rm", "-T", "demo")
    assert output.count("epoch ") >= 20
    assert "Test accuracy 0.9" in output


def test_containers_do_not_run_as_root_and_cannot_install_packages(deployment):
    assert deployment.in_server("id", "-u").strip().splitlines()[-1] == "10001"
    for command in ("python -m pip --version", "gcc --version", "touch /opt/gradwire/here"):
        answer = deployment.in_server("sh", "-c", f"{command} >/dev/null 2>&1 || echo refused")
        assert "refused" in answer, command


def test_other_users_can_read_neither_the_data_nor_the_token(deployment):
    modes = deployment.in_server("sh", "-c", "stat -c '%a %n' /data /data/gradwire.db /blobs /blobs/mark")
    assert {"700 /data", "600 /data/gradwire.db", "700 /blobs", "600 /blobs/mark"} <= set(modes.splitlines())
    command = deployment.in_server("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "gradwire" in command
    assert deployment.token not in command


def test_a_worker_and_then_the_server_are_killed_and_no_epoch_is_lost(deployment, long_job, undisturbed):
    with deployment.client() as client:
        job = long_job(client, "disturbed")
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 30:
                deployment.kill(deployment.containers("ray-worker")[0])
                deployment.compose("up", "-d", "--no-build", "ray-worker")
            if len(seen) == 80:
                deployment.kill(deployment.containers("server")[0])
                deployment.compose("up", "-d", "--no-build", "server")
        assert seen == list(range(1, 151))
        assert job.refresh().state == "SUCCEEDED"
        assert job.info.attempt >= 2
        assert client.models.get("disturbed").weights_sha256 == undisturbed


def test_workers_can_be_scaled(deployment, long_job):
    deployment.compose("up", "-d", "--no-build", "--scale", "ray-worker=2", "ray-worker")
    assert len(deployment.containers("ray-worker")) == 2
    with deployment.client() as client:
        jobs = [long_job(client, f"side-by-side-{number}") for number in (1, 2)]
        next(iter(jobs[1].epochs()))
        assert [job.refresh().state for job in jobs] == ["RUNNING", "RUNNING"]
        for job in jobs:
            job.cancel()


def test_stored_data_survives_compose_down_and_up(deployment, digits, undisturbed):
    token = deployment.token
    deployment.compose("down")
    deployment.up()
    assert deployment.token == token
    with deployment.client() as client:
        assert {"outside", "undisturbed", "disturbed"} <= {job.name for job in client.jobs.list()}
        assert [epoch.epoch for epoch in client.jobs.get("disturbed").epochs()] == list(range(1, 151))
        assert client.models.get("undisturbed").weights_sha256 == undisturbed
        assert client.models.predict("outside", digits.test[0]).shape == (360, 10)


def test_a_certificate_turns_tls_on(deployment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run([*command, *names], check=True, capture_output=True)
    for path in (folder, *folder.parents[:2], cert, key):
        path.chmod(path.stat().st_mode | 0o055)  # The server runs as another user.
    variables = {"GRADWIRE_TLS_CERT": str(cert), "GRADWIRE_TLS_KEY": str(key)}
    deployment.compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "server", **variables)
    deployment.wait_until_ready()
    with gw.Client(deployment.address, token=deployment.token, tls=cert) as client:
        assert client.health() == "SERVING"
        assert client.jobs.get("outside").info.state == "SUCCEEDED"
    with gw.Client(deployment.address, token=deployment.token) as client, pytest.raises(gw.UnavailableError):
        client.jobs.list()
    deployment.compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "server")
    deployment.wait_until_ready()


@pytest.mark.parametrize("profile", ["gpu", "demo", "postgres"])
def test_the_profiles_can_be_read(deployment, profile):
    assert "services" in deployment.compose("--profile", profile, "config")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"GRADWIRE_CPUS_PER_JOB": "many"}, "GRADWIRE_CPUS_PER_JOB"),
        ({"GRADWIRE_PUBLISH": "0.0.0.0"}, "GRADWIRE_PUBLISH"),
    ],
)
def test_an_invalid_value_stops_the_server_with_a_line_that_names_it(deployment, variables, said):
    deployment.compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "server", check=False, **variables)
    deadline = time.monotonic() + 60
    while said not in deployment.compose("logs", "server", check=False):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    deployment.compose("up", "-d", "--no-build", "--force-recreate", "--no-deps", "server")
    deployment.wait_until_ready()
