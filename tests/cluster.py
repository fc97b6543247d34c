"""A Ray cluster that runs outside the servers. As in the deployment, jobs run on a separate node, not on the head."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

_RAY = Path(sys.executable).parent / "ray"


class Cluster:
    """A head, and a node that runs jobs. Their processes are independent of the servers.

    Args:
        folder: A folder for Ray's files.
        cpus: The number of CPUs of the node.
        token: If given, only processes that use `environment` can join the cluster.
    """

    def __init__(self, folder: Path, cpus: int = 2, *, token: str = "") -> None:
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder),
            "PYTHONFAULTHANDLER": "1",
        }
        if token:
            file = folder / "token"
            file.write_text(token)
            self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._cpus = cpus
        self.start()

    def start(self) -> None:
        """Start both nodes."""
        self._head = self._start_node("--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false")
        self.start_node()

    def start_node(self) -> None:
        """Start the node that runs jobs."""
        self._node = self._start_node(f"--address={self.address}", f"--num-cpus={self._cpus}")

    def kill_node(self) -> None:
        """Kill the node that runs jobs, including its workers."""
        _kill_family(self._node)

    def kill(self) -> None:
        """Kill everything. A clean shutdown would wait for the actors, which keep running for the next server."""
        for node in (self._node, self._head):
            _kill_family(node)

    def workers(self) -> list[psutil.Process]:
        """Return the gradwire worker processes on the node."""
        return workers_below(self._node.pid)

    def _start_node(self, *options: str) -> "subprocess.Popen[str]":
        command = [_RAY, "start", "--block", "--disable-usage-stats", *options]
        node = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert node.stdout is not None
        assert any("Ray runtime started" in line for line in node.stdout)
        return node


def workers_below(pid: int) -> list[psutil.Process]:
    """Return the gradwire worker processes that descend from a process."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("ray::Trainer" in part for part in (process.name(), *process.cmdline())):
                    found.append(process)
    return found


def _kill_family(node: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(node.pid)
        for process in [*family.children(recursive=True), family]:
            with contextlib.suppress(psutil.Error):
                process.kill()
    node.wait(20)
    assert node.stdout is not None
    node.stdout.close()
