"""Runs jobs while injecting faults into the server, workers, store, Ray and clients, and checks the results.

Half of the faults affect a single server with a SQLite store, and half affect two servers with a Postgres store. For
each job, the script checks that each watcher sees every stored event exactly once and in order, that each epoch is
stored once, that repeated epochs have the same results, and that the weights equal those of a run without faults.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import long_job
from deployment import Deployment, one_server, two_servers
from postgres import PROGRAMS
from watching import Client, Watcher

import gradwire as gw

EPOCHS = 300


def submit(address: str, name: str) -> gw.Job:
    """Submit a job that takes a few seconds. The job is always the same."""
    with gw.Client(address) as client:
        # The best epoch changes now and then, and is not the last one.
        best = gw.EarlyStopping("running_loss", patience=EPOCHS, min_delta=0.02)
        job = long_job.submit(client, name, epochs=EPOCHS, batch_size=4, early_stopping=best, keep="every:100")
        if name == "undisturbed":
            job.result()
        return job


def digests(client: gw.Client, name: str) -> list[str]:
    """Return the digests of the weights of a job: of its model and of its kept epochs."""
    kept = client.jobs.get(name).info.kept_epochs
    return [f"{epoch or 'model'}: {client.models.get(name, epoch).weights_sha256}" for epoch in (None, *kept)]


@dataclass
class Tally:
    """Counts of faults, jobs and checks, and the violations that were found."""

    faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    epochs_checked: int = 0
    events_checked: int = 0
    violations: list[str] = field(default_factory=list)
    recovery_seconds: dict[str, list[float]] = field(default_factory=dict)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Record a violation if the condition does not hold."""
        if not holds:
            self.violations.append(otherwise)
            print(f"VIOLATION: {otherwise}", flush=True)


Faults = dict[str, tuple[int, Callable[[], None]]]


def faults(deployment: Deployment, client: Client) -> Faults:
    """Return the faults by name. Each fault has a weight for the random choice, and a function that injects it."""
    found: Faults = {
        "SIGKILL of the server": (10, lambda: deployment.stop_server(signal.SIGKILL)),
        "SIGTERM of the server": (10, lambda: deployment.stop_server(signal.SIGTERM)),
        "SIGSTOP of the server": (10, deployment.freeze_server),
        "SIGKILL of the worker": (10, deployment.kill_worker),
        "SIGSTOP of the worker": (10, deployment.freeze_worker),
        "SIGKILL of the client": (10, client.kill),
        "connections cut": (10, deployment.proxy.cut),
        "connections swallowed": (10, deployment.swallow),
        "SIGKILL of the worker's node": (3, deployment.kill_node),
        "SIGKILL of Ray's head": (1, deployment.kill_cluster),
    }
    if deployment.postgres is None:
        found["torn last write"] = (8, deployment.tear_last_write)
    else:
        found["crash of Postgres"] = (8, deployment.crash_postgres)
        found["SIGSTOP of Postgres"] = (8, deployment.freeze_postgres)
    if deployment.disk is not None:
        found["disk full"] = (8, deployment.fill_disk)
    return found


# These faults interrupt the job. The recovery time is measured, and the next fault waits until the job has recovered.
_INTERRUPTING = ("SIGKILL of the server", "SIGKILL of the worker", "SIGKILL of the worker's node", "torn last write")


def disturb(
    deployment: Deployment, tally: Tally, chance: random.Random, watcher: Watcher, client: Client, left: int
) -> None:
    """Inject up to `left` faults while the watched job runs."""
    possible = faults(deployment, client)
    names, weights = list(possible), [weight for weight, _ in possible.values()]
    while left > 0 and not watcher.ended.wait(chance.uniform(0.02, 0.5)):
        name = chance.choices(names, weights)[0]
        seen = len(watcher.epochs)
        began = time.monotonic()
        print(f"    after epoch {watcher.epochs[-1] if watcher.epochs else 0}: {name}", flush=True)
        possible[name][1]()
        tally.faults[name] += 1
        left -= 1
        if name in _INTERRUPTING:
            while len(watcher.epochs) <= seen and not watcher.ended.wait(0.01):
                pass
            tally.recovery_seconds.setdefault(name, []).append(time.monotonic() - began)


def check(address: str, tally: Tally, name: str, watchers: list[Watcher], client: Client, expected: list[str]) -> None:
    """Compare the events that the watchers saw with the stored events."""
    with gw.Client(address) as connected:
        job = connected.jobs.get(name)
        events = list(job.events())
        stored = [event.sequence for event in events]
        epochs = [event.epoch.epoch for event in events if event.epoch is not None]
        tally.expect(stored == list(range(1, len(stored) + 1)), f"{name}: the log has gaps")
        tally.expect(epochs == list(range(1, EPOCHS + 1)), f"{name}: epochs are missing or repeated: {len(epochs)}")
        job.refresh()
        tally.expect(job.info.state == "SUCCEEDED", f"{name} ended as {job.info.state}: {job.info.error}")
        warnings = [event.text for event in events if event.reason == "NOT_DETERMINISTIC"]
        tally.expect(not warnings, f"{name}: {warnings}")
        if job.info.state == "SUCCEEDED":
            tally.expect(digests(connected, name) == expected, f"{name}: the weights differ")
    for watcher in watchers:
        watcher.join(120)
        tally.expect(not watcher.error, f"{name}: a watcher failed: {watcher.error}")
        how = "continues" if watcher.is_alive() else "has ended"
        saw = f"{len(watcher.sequences)} of {len(stored)} events, {watcher.sequences[:1]} to {watcher.sequences[-1:]}"
        tally.expect(watcher.sequences == stored, f"{name}: a watcher that {how} saw {saw}")
        tally.events_checked += len(watcher.sequences)
        tally.epochs_checked += len(watcher.epochs)
    noted = client.sequences()
    tally.expect(noted == stored, f"{name}: the killed clients saw {len(noted)} of {len(stored)} events")
    tally.events_checked += len(noted)


def run_jobs(deployment: Deployment, tally: Tally, chance: random.Random, notes: Path, until: int) -> None:
    """Run jobs until a total of `until` faults have been injected."""
    submit(deployment.address, "undisturbed")
    with gw.Client(deployment.address) as connected:
        expected = digests(connected, "undisturbed")
    while tally.faults.total() < until:
        tally.jobs += 1
        name = f"job-{tally.jobs}"
        submit(deployment.address, name)
        watcher = Watcher(deployment.proxy.address, name)
        watcher.start()
        client = Client(deployment.proxy.address, name, notes / name)
        disturb(deployment, tally, chance, watcher, client, until - tally.faults.total())
        late = Watcher(deployment.proxy.address, name)  # A second watcher, which reads the log from the start.
        late.start()
        watcher.ended.wait(180)
        for log in deployment.crashed():
            tally.expect(False, f"{name}: a server exited without a fault: {log}")
        violations = len(tally.violations)
        check(deployment.address, tally, name, [watcher, late], client, expected)
        if len(tally.violations) > violations:
            print("\n".join(f"--- {server.data}\n{server.log.read_text()[-4000:]}" for server in deployment.servers))
        print(f"{name}: {tally.faults.total()} faults, {len(tally.violations)} violations", flush=True)


def report(tally: Tally, seed: int, seconds: float) -> None:
    """Print the totals."""
    print(f"\nseed {seed}, {tally.jobs} jobs, {seconds:.0f} s")
    for kind, count in sorted(tally.faults.items()):
        print(f"{count:>6}  {kind}")
    for kind, times in sorted(tally.recovery_seconds.items()):
        middle = sorted(times)[len(times) // 2]
        print(f"from {kind} to the next new epoch: median {middle:.2f} s, worst {max(times):.2f} s")
    counts = f"{tally.epochs_checked} epochs and {tally.events_checked} events checked"
    print(f"{tally.faults.total()} faults injected, {counts}, {len(tally.violations)} violations")


def main() -> int:
    """Inject faults into each deployment in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["one-server", "two-servers"], help="inject faults only into this deployment")
    arguments = parser.parse_args()
    chance, tally = random.Random(arguments.seed), Tally()
    deployments = {"one-server": one_server, "two-servers": two_servers}
    if arguments.only:
        deployments = {arguments.only: deployments[arguments.only]}
    if not PROGRAMS and deployments.pop("two-servers", None):
        print("skipping two servers on a Postgres, because it is not installed (apt-get install postgresql)")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp") as scratch:
        Path(scratch).chmod(0o755)  # Postgres runs as another user.
        for number, make in enumerate(deployments.values(), start=1):
            with make(Path(scratch, make.__name__), chance) as deployment:
                run_jobs(deployment, tally, chance, Path(scratch), arguments.faults * number // len(deployments))
    report(tally, arguments.seed, time.monotonic() - started)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
