"""A shorter `make conformance`, with the clients that build in seconds and whose languages are installed."""

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".npm" / "node_modules" / ".bin" / "buf"
sys.path.insert(0, str(Path(__file__).parent))
from network import BreakingNetwork  # noqa: E402


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed; `make lint` installs it if npm is installed")
@pytest.mark.timeout(600)
def test_clients_in_other_languages_train_the_same_weights_over_an_unreliable_network():
    command = [sys.executable, ROOT / "tests" / "conformance" / "run.py", "shell", "typescript", "go"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)
    # If a language is not installed, its client is not built. That does not count as a failure.
    assert ", 0 failed, " in run.stdout, run.stdout + run.stderr
    assert run.stdout.count("the same") >= 1


def test_the_unreliable_network_carries_twice_as_much_after_each_cut():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with BreakingNetwork(f"127.0.0.1:{server.getsockname()[1]}") as network:
            # The data crosses the network twice, to the server and back. That is 48 KiB, more than 8, 16 and 32 KiB.
            for cuts in (1, 2, 3):
                assert _echoed_bytes(network.address, 24 << 10) < 24 << 10
                assert network.cuts == cuts
            assert _echoed_bytes(network.address, 24 << 10) == 24 << 10
            assert network.cuts == 3


def _echo(server):
    with contextlib.suppress(OSError):  # The test has closed the server.
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                while data := connection.recv(1 << 16):
                    connection.sendall(data)


def _echoed_bytes(address, size):
    host, port = address.split(":")
    received = 0
    with socket.create_connection((host, int(port))) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(bytes(size))
        while received < size and (data := connection.recv(1 << 16)):
            received += len(data)
    return received
