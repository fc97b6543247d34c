"""Fault runs: real servers, real Ray, real sockets; things are killed at random moments, and nothing may be lost.

python tests/faults/run.py --faults 500 --seed 7

A job is watched through a proxy while faults come: SIGKILL, SIGTERM or SIGSTOP of the server, SIGKILL or SIGSTOP of
its worker, connections that are cut or swallowed. After each job every event that any watcher saw must be there, in
order, once, and the weights must have the digest of the undisturbed run. Prints what was done, and exits with 1 if
anything was violated.
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from proxy import Proxy

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

EPOCHS = 300
_MOST_SECONDS_TO_END = 20
_RNG = np.random.default_rng(0)
X, Y = _RNG.random((2000, 64)), _RNG.integers(0, 5, 2000)


def submit(client: gw.Client, name: str) -> gw.Job:
    """A job of some seconds, always the same."""
    gw.seed(0)
    model = Sequential(Linear(64, 96), ReLU(), Linear(96, 5))
    optimizer = SGD(model, lr=0.1)
    return client.submit(
        model, (X, Y), loss=CrossEntropy(), optimizer=optimizer, epochs=EPOCHS, batch_size=4, name=name
    )


@dataclass
class Tally:
    """What was done, and what went wrong."""

    faults: Counter[str] = field(default_factory=Counter)
    epochs_checked: int = 0
    events_checked: int = 0
    violations: list[str] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.violations.append(otherwise)
            print(f"VIOLATION: {otherwise}", flush=True)


class Cluster:
    """Ray in a process group of its own, so that servers come and go beside it."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder),
            "PYTHONFAULTHANDLER": "1",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        ray = Path(sys.executable).parent / "ray"
        port = self.address.rpartition(":")[2]
        options = ("--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats")
        command = [ray, "start", "--head", "--block", f"--port={port}", *options]
        self._head = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert self._head.stdout is not None
        assert any("Ray runtime started" in line for line in self._head.stdout)

    def workers(self) -> list[psutil.Process]:
        """The processes of gradwire's actors."""
        found = []
        for process in psutil.Process(self._head.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any("ray::Trainer" in part for part in (process.name(), *process.cmdline())):
                    found.append(process)
        return found

    def close(self) -> None:
        family = psutil.Process(self._head.pid)
        # Asked in order, Ray would wait for its actors, which stay for the next server.
        for process in [*family.children(recursive=True), family]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._head.wait(20)


class Service:
    """A server that can be ended and started again, behind a proxy whose address stays."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._options = (f"--ray={cluster.address}",)
        self._folder, self._environment = folder, cluster.environment
        self.proxy = Proxy()
        self.start()

    def start(self) -> None:
        self.server = gw.LocalServer(*self._options, data=self._folder, env=self._environment)
        self.server.start()
        self.proxy.point_to(self.server.address)

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends the server, wait until it has, and start it again."""
        process = self.server.process
        assert process is not None
        process.send_signal(number)
        try:
            process.wait(_MOST_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # It then prints where its threads are.
            process.wait()
            log = self.server.log.read_text()[-6000:]
            raise AssertionError(
                f"{number.name}: the server was not out after {_MOST_SECONDS_TO_END} s\n{log}"
            ) from None
        self.proxy.cut()
        self.start()

    def close(self) -> None:
        self.server.stop()
        self.proxy.close()


class Watcher(threading.Thread):
    """Follows a job's events, as the SDK does it, until the job ends."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(daemon=True)
        self.sequences: list[int] = []
        self.epochs: list[int] = []
        self.trouble = ""
        self.ended = threading.Event()
        self._address, self._name = address, name

    def run(self) -> None:
        try:
            with gw.Client(self._address) as client:
                for event in client.job(self._name).events():
                    self.sequences.append(event.sequence)
                    if event.epoch is not None:
                        self.epochs.append(event.epoch.epoch)
        except gw.GradwireError as error:
            self.trouble = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()


def stopped(process: psutil.Process, seconds: float) -> None:
    """Let a process stand still for a while."""
    with contextlib.suppress(psutil.Error):
        process.suspend()
        time.sleep(seconds)
        process.resume()


def faults(service: Service, cluster: Cluster, chance: random.Random) -> dict[str, Callable[[], None]]:
    """Every fault, by its name."""

    def kill_worker() -> None:
        for process in cluster.workers():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def stop_worker() -> None:
        for process in cluster.workers():
            stopped(process, chance.uniform(0.1, 1))

    def stop_server() -> None:
        assert service.server.process is not None
        stopped(psutil.Process(service.server.process.pid), chance.uniform(0.1, 2))

    def swallow() -> None:
        service.proxy.swallow(True)
        time.sleep(chance.uniform(0.1, 1))
        service.proxy.swallow(False)
        service.proxy.cut()  # What was swallowed is missing: the connection is of no use any more.

    return {
        "SIGKILL of the server": lambda: service.end(signal.SIGKILL),
        "SIGTERM of the server": lambda: service.end(signal.SIGTERM),
        "SIGSTOP of the server": stop_server,
        "SIGKILL of the worker": kill_worker,
        "SIGSTOP of the worker": stop_worker,
        "connections cut": service.proxy.cut,
        "connections swallowed": swallow,
    }


# A job is given up when its workers die this often: one less may be killed.
_MOST_WORKERS_KILLED = 2


def disturb(
    service: Service, cluster: Cluster, tally: Tally, chance: random.Random, watcher: Watcher, left: int
) -> None:
    """Let faults come while the watched job runs, up to so many."""
    possible = faults(service, cluster, chance)
    workers_killed = 0
    while left > 0 and not watcher.ended.wait(chance.uniform(0.02, 0.5)):
        name = chance.choice(list(possible))
        if name == "SIGKILL of the worker":
            if workers_killed == _MOST_WORKERS_KILLED:
                continue
            workers_killed += 1
        seen = len(watcher.epochs)
        possible[name]()
        tally.faults[name] += 1
        left -= 1
        if name.startswith("SIGKILL"):
            began = time.monotonic()
            while len(watcher.epochs) <= seen and not watcher.ended.wait(0.01):
                pass
            tally.recovery_seconds.append(time.monotonic() - began)


def check(service: Service, tally: Tally, name: str, watchers: list[Watcher], expected: str) -> None:
    """Hold what was seen against what is stored."""
    with gw.Client(service.server.address) as client:
        job = client.job(name)
        stored = [event.sequence for event in job.events()]
        epochs = [epoch.epoch for epoch in job.epochs()]
        tally.expect(stored == list(range(1, len(stored) + 1)), f"{name}: the log has gaps")
        tally.expect(epochs == list(range(1, EPOCHS + 1)), f"{name}: epochs are missing or twice: {len(epochs)}")
        job.refresh()
        tally.expect(job.info.state == "SUCCEEDED", f"{name} ended as {job.info.state}: {job.info.error}")
        warnings = [event.text for event in job.events() if "NOT_DETERMINISTIC" in event.text]
        tally.expect(not warnings, f"{name}: {warnings}")
        if job.info.state == "SUCCEEDED":
            tally.expect(client.model_info(name).weights_sha256 == expected, f"{name}: the weights are others")
    for watcher in watchers:
        watcher.join(120)
        tally.expect(not watcher.trouble, f"{name}: a watcher was left alone: {watcher.trouble}")
        how = "goes on" if watcher.is_alive() else "has ended"
        saw = f"{len(watcher.sequences)} of {len(stored)} events, {watcher.sequences[:1]} to {watcher.sequences[-1:]}"
        tally.expect(watcher.sequences == stored, f"{name}: a watcher that {how} saw {saw}")
        tally.events_checked += len(watcher.sequences)
        tally.epochs_checked += len(watcher.epochs)


@contextlib.contextmanager
def deployment() -> Iterator[tuple[Service, Cluster]]:
    """A cluster and a server on it, with all that they leave behind gone at the end."""
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as scratch:
        cluster = Cluster(Path(scratch, "ray"))
        try:
            service = Service(Path(scratch, "data"), cluster)
            try:
                yield service, cluster
            finally:
                service.close()
        finally:
            cluster.close()


def main() -> int:
    """Run jobs until enough faults have come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, tally = random.Random(arguments.seed), Tally()
    started = time.monotonic()
    with deployment() as (service, cluster):
        with gw.Client(service.server.address) as client:
            submit(client, "undisturbed").result()
            expected = client.model_info("undisturbed").weights_sha256
        number = 0
        while tally.faults.total() < arguments.faults:
            number += 1
            name = f"job-{number}"
            with gw.Client(service.server.address) as client:
                submit(client, name)
            watchers = [Watcher(service.proxy.address, name)]
            watchers[0].start()
            disturb(service, cluster, tally, chance, watchers[0], arguments.faults - tally.faults.total())
            late = Watcher(service.proxy.address, name)  # Another watcher, from the beginning.
            late.start()
            watchers.append(late)
            watchers[0].ended.wait(120)
            check(service, tally, name, watchers, expected)
            print(f"{name}: {tally.faults.total()} faults, {len(tally.violations)} violations", flush=True)
    print(f"\nseed {arguments.seed}, {number} jobs, {time.monotonic() - started:.0f} s")
    for kind, count in sorted(tally.faults.items()):
        print(f"{count:>6}  {kind}")
    recovery = sorted(tally.recovery_seconds) or [float("nan")]
    middle = recovery[len(recovery) // 2]
    print(f"from a kill to the next new epoch: median {middle:.2f} s, worst {recovery[-1]:.2f} s")
    counts = f"{tally.epochs_checked} epochs and {tally.events_checked} events checked"
    print(f"{tally.faults.total()} faults injected, {counts}, {len(tally.violations)} violations")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
