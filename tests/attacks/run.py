"""Attacks a server over the network, and measures what each attack costs others.

python tests/attacks/run.py --seconds 10

A server with a token, a SQLite store and few file descriptors trains a job, and a well-behaved client calls GetJob 50
times a second. The attacks follow one after another. For each, a line of the table shows:

- the calls of the attacker, and their most frequent statuses;
- the duration of the GetJob calls in ms: the median, the 99th percentile and the slowest;
- the peak memory of the server's process, without Ray and the workers;
- the epochs that the job stored per second, and the longest time without one.

The last lines show by how much the server's memory and file descriptors grew, and the tracebacks in its log.

Real attackers bring their own processors. Here, they share those of the server, so they run with a lower priority
(nice 10). The first lines are no attacks: they show the figures without other load, with processes that use all
processors, and with valid calls as fast as possible. Compare the attacks with them.

The command fails if the server ends, if a GetJob fails or takes over a second, if the job stores no epoch for three
seconds, if the server accepts a call that it must refuse, if a job does not train after the attacks, or if the server's
log has a traceback. An asterisk marks an attack that exceeds an aim: a 99th percentile of 50 ms, or 600 MB.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import long_job
import numpy as np
import psutil
from attacks.attacker import LARGE_MODEL, RUNNING_JOB, WIDE_MODEL, Attack
from attacks.grpc_attacks import BASELINES, GRPC_ATTACKS
from attacks.http_attacks import HTTP_ATTACKS
from attacks.measuring import AIM_P99_MS, AIM_PEAK_MB, HEADING, innocent_client, measure
from guarded_server import TOKEN, guarded_server

import gradwire as gw
from gradwire_engine.backend import processor_model

# More than the job can train during the attacks.
_EPOCHS = 20_000_000
_QUOTA_GIB = 1
# After an attack, the server closes its connections within this time, in seconds, except a few.
_CALM_SECONDS = 15.0
_FEW_DESCRIPTORS = 16


@dataclass(frozen=True)
class _Usage:
    """The memory of the server's process in MB, and its number of file descriptors."""

    memory_mb: float
    descriptors: int


def main() -> int:
    """Run the attacks and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="duration of each attack")
    parser.add_argument("--only", default="", help="run only the attacks whose names contain this text")
    arguments = parser.parse_args()
    chosen = [each for each in [*BASELINES, *GRPC_ATTACKS, *HTTP_ATTACKS] if arguments.only in each.name]
    print(f"{processor_model()}, {os.cpu_count()} processors. Attackers run with a lower priority (nice 10).")
    print(f"Aims: 99th percentile {AIM_P99_MS:.0f} ms, peak {AIM_PEAK_MB:.0f} MB. * marks what exceeds one.\n{HEADING}")
    with guarded_server(f"--max-tensors={_QUOTA_GIB}") as server:
        problems = _attack(server, chosen, arguments.seconds)
        log = server.log.read_text()
    tracebacks = log.count("Traceback")
    print(f"tracebacks in the log: {tracebacks}, size of the log: {len(log) / 1000:.0f} kB")
    if tracebacks:
        problems.append(f"the log of the server has {tracebacks} tracebacks")
    if tracebacks:
        print(log)
    for problem in problems:
        print(f"FAILED: {problem}")
    return int(bool(problems))


def _attack(server: gw.LocalServer, attacks: Sequence[Attack], seconds: float) -> list[str]:
    """Run the attacks, and return a description of each problem."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    problems: list[str] = []
    with gw.Client(server.address, token=TOKEN) as client, _trained(client), innocent_client(server) as innocent:
        # The first calls make the server import modules and open connections.
        before = _calm(process, _usage(process).descriptors)
        for attack in attacks:
            figures = measure(attack, server, innocent, seconds)
            print(figures.row(), flush=True)
            problems += figures.problems()
            if figures.server_ended:
                return problems
            _clean_up(client)
            after = _calm(process, before.descriptors)
        growth, descriptors = after.memory_mb - before.memory_mb, after.descriptors - before.descriptors
        print(f"since the start: memory {growth:+.0f} MB, descriptors {descriptors:+d}")
        job = long_job.submit(client, "after", epochs=20)
        if job.wait(60).state != "SUCCEEDED":
            problems.append(f"a job after the attacks ended as {job.info.state}: {job.info.error}")
    return problems


@contextlib.contextmanager
def _trained(client: gw.Client) -> Iterator[None]:
    """Train the models that the attacks use, and run the job in the context."""
    for name, inputs, outputs in ((LARGE_MODEL, 5000, 5000), (WIDE_MODEL, 1, 1000)):
        model = gw.Sequential(gw.Linear(inputs, outputs))
        data = np.ones((4, inputs), np.float32), np.zeros((4, outputs), np.float32)
        options = {"loss": gw.MSE(), "optimizer": gw.SGD(model, lr=1e-9), "epochs": 1}
        client.jobs.submit(model, data, **options, name=_short(name)).result()
    running = long_job.submit(client, _short(RUNNING_JOB), epochs=_EPOCHS)
    next(running.epochs())
    try:
        yield
    finally:
        with contextlib.suppress(gw.GradwireError):
            running.cancel()


def _short(name: str) -> str:
    return name.partition("/")[2]


def _clean_up(client: gw.Client) -> None:
    """Delete the jobs and tensors of the attacker."""
    kept = {_short(name) for name in (RUNNING_JOB, LARGE_MODEL, WIDE_MODEL)}
    for job in client.jobs.list():
        if job.name not in kept:
            with contextlib.suppress(gw.FailedPreconditionError):
                job.cancel()
            job.wait()
            job.delete()
    for tensor in client.tensors.list():
        if not tensor.referenced:
            with contextlib.suppress(gw.FailedPreconditionError, gw.NotFoundError):
                client.tensors.delete(tensor)


def _calm(process: psutil.Process, descriptors: int) -> _Usage:
    """Wait until the server has at most about `descriptors` file descriptors, and return what it uses."""
    deadline = time.monotonic() + _CALM_SECONDS
    while (used := _usage(process)).descriptors > descriptors + _FEW_DESCRIPTORS:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return used


def _usage(process: psutil.Process) -> _Usage:
    return _Usage(process.memory_info().rss / 1e6, process.num_fds())


if __name__ == "__main__":
    sys.exit(main())
