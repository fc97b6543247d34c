"""Fixtures for all tests: small real data sets, models, and one server for all integration tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Set this before gRPC is loaded, because otherwise its fork handlers run in each process that a test starts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import numpy as np
import pytest
from long_job import SERVER_CAPACITY
from postgres import PROGRAMS, Postgres

import gradwire as gw
from gradwire import Linear, Module, ReLU

SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist.npz"


class Digits(NamedTuple):
    """The UCI digits, scaled to 0..1, with 1437 rows for training and 360 rows for testing."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class SmallModel(Module):
    """A 64-32-10 network, defined as a class."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Linear(64, 32)
        self.relu1 = ReLU()
        self.fc2 = Linear(32, 10)

    def forward(self, x):
        return self.fc2(self.relu1(self.fc1(x)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Draw the same weights in a test, regardless of which tests ran before it."""
    gw.seed(0)


@pytest.fixture(scope="session")
def digits() -> Digits:
    from sklearn.datasets import load_digits  # This import is slow, and most unit tests do not need the digits.

    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order] / 16, y[order]
    return Digits((X[:1437], y[:1437]), (X[1437:], y[1437:]))


@pytest.fixture
def model() -> SmallModel:
    gw.seed(0)
    return SmallModel()


@pytest.fixture(scope="session")
def server() -> Iterator[gw.LocalServer]:
    with gw.LocalServer(f"--cpus-per-job={(os.cpu_count() or 1) / SERVER_CAPACITY}") as running:
        yield running


@pytest.fixture
def client(server: gw.LocalServer) -> Iterator[gw.Client]:
    with gw.Client(server.address) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_server_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GRADWIRE_ADDRESS", "GRADWIRE_TOKEN", "GRADWIRE_TLS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def mnist():
    """MNIST, if it is available next to the repository. It is too large to be part of the repository."""
    if not SHARED_MNIST.exists():
        pytest.skip(f"{SHARED_MNIST} does not exist")
    with np.load(SHARED_MNIST, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres server, if Postgres is installed. Each test creates its own databases."""
    if not PROGRAMS:
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # Its socket paths must be short.
    running = Postgres(folder)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and a key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key
