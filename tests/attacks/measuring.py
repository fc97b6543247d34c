"""Measures what an attack costs others: a well-behaved client, a job that runs, and the server's memory."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from attacks.attacker import RUNNING_JOB, Attack
from guarded_server import TOKEN
from innocent_client import InnocentClient
from process_memory import peak_mb, reset_peak

import gradwire as gw

# The aims: an attack that exceeds them is marked. An attack that exceeds the limits below is a failure.
AIM_P99_MS = 50.0
AIM_PEAK_MB = 600.0
# To accept and refuse a burst of thousands of calls takes more than a second.
_MAX_INNOCENT_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 3.0
# The time after its end in which an attacker must have reported, in seconds.
_REPORT_SECONDS = 30.0
_PROCESS = Path(__file__).parent / "process.py"


@dataclass
class Figures:
    """The figures of one attack.

    Attributes:
        attack: The attack.
        statuses: The number of its calls that ended with each status.
        innocent_ms: The duration of each GetJob call of the well-behaved client, in ms.
        failures: A description of each of these calls that failed.
        epochs_per_second: The rate at which the job that runs stored epochs.
        pause_seconds: The longest time without a new epoch, in seconds.
        peak_mb: The peak memory of the server's process, in MB.
        server_ended: Whether the server has ended.
        attacker_failed: Whether an attacker ended without a report.
    """

    attack: Attack
    statuses: Counter[str] = field(default_factory=Counter)
    innocent_ms: Sequence[float] = ()
    failures: Sequence[str] = ()
    epochs_per_second: float = 0.0
    pause_seconds: float = 0.0
    peak_mb: float = 0.0
    server_ended: bool = False
    attacker_failed: bool = False

    def percentile(self, share: float) -> float:
        """Return the time in ms within which this share of the well-behaved client's calls ended."""
        return float(np.percentile(self.innocent_ms, 100 * share)) if self.innocent_ms else float("inf")

    def problems(self) -> list[str]:
        """Return a description of everything that must not happen, or an empty list."""
        found = list(self.failures[:3])
        if self.server_ended:
            found.append("the server has ended")
        if self.attacker_failed:
            found.append("the attacker has failed")
        if self.percentile(1) > 1000 * _MAX_INNOCENT_SECONDS:
            found.append(f"a GetJob took {self.percentile(1) / 1000:.2f} s")
        if not self.epochs_per_second or self.pause_seconds > _MAX_PAUSE_SECONDS:
            found.append(f"the job stored no epoch for {self.pause_seconds:.1f} s")
        if self.attack.refused and self.statuses["OK"]:
            found.append(f"the server accepted {self.statuses['OK']} calls that it must refuse")
        return [f"{self.attack.name}: {each}" for each in found]

    def exceeds_an_aim(self) -> bool:
        """Whether the 99th percentile or the memory exceeds its aim."""
        return self.percentile(0.99) > AIM_P99_MS or self.peak_mb > AIM_PEAK_MB

    def row(self) -> str:
        """Return a line of the table."""
        common = self.statuses.most_common(3)
        statuses = ", ".join(f"{status} {_short(count)}" for status, count in common) or "-"
        times = " ".join(f"{self.percentile(share):7.1f}" for share in (0.5, 0.99, 1))
        mark = "*" if self.exceeds_an_aim() else " "
        return (
            f"{self.attack.name:36}{self.statuses.total():8} {times}{mark}{self.peak_mb:6.0f} "
            f"{self.epochs_per_second:7.0f} {self.pause_seconds:6.2f}  {statuses}"
        )


HEADING = (
    f"{'attack':36}{'calls':>8} {'p50':>7} {'p99':>7} {'slowest':>7} {'peak':>6} {'epochs':>7} {'pause':>6}  statuses\n"
    f"{'':36}{'':8} {'ms':>7} {'ms':>7} {'ms':>7} {'MB':>6} {'per s':>7} {'s':>6}"
)


def innocent_client(server: gw.LocalServer) -> InnocentClient:
    """Return a well-behaved client, which asks for the job that runs."""
    return InnocentClient(server.address, (("authorization", f"Bearer {TOKEN}"),), RUNNING_JOB)


def measure(attack: Attack, server: gw.LocalServer, innocent: InnocentClient, seconds: float) -> Figures:
    """Run an attack and measure its effects.

    Args:
        attack: The attack.
        server: The server, which comes from guarded_server.
        innocent: The well-behaved client, whose calls return the job that runs.
        seconds: How long the attack lasts.
    """
    assert server.process is not None
    pid = server.process.pid
    found = re.search(r"the web page is at http://([^\s/]+)", server.log.read_text())
    assert found is not None
    command = [sys.executable, str(_PROCESS), attack.name, str(seconds), server.address, found[1], TOKEN]
    attackers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(max(1, attack.processes))
    ]
    figures = Figures(attack)
    try:
        for attacker in attackers:
            assert attacker.stdout is not None
            figures.attacker_failed |= attacker.stdout.readline() != "ready\n"
        reset_peak(pid)
        calls, failures, epochs = len(innocent.seconds), len(innocent.failures), len(innocent.epochs)
        for attacker in attackers:
            assert attacker.stdin is not None
            attacker.stdin.write("\n")
            attacker.stdin.flush()
        reports = [attacker.communicate(timeout=seconds + _REPORT_SECONDS)[0] for attacker in attackers]
        innocent.wait_for_call()
        figures.server_ended = server.process.poll() is not None
        figures.peak_mb = 0.0 if figures.server_ended else peak_mb(pid)
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    for report in reports:
        figures.attacker_failed |= not report
        figures.statuses += Counter(json.loads(report or "{}"))
    figures.innocent_ms = [1000 * each for each in innocent.seconds[calls:]]
    figures.failures = innocent.failures[failures:]
    figures.epochs_per_second, figures.pause_seconds = progress(innocent.epochs[epochs:])
    return figures


def progress(seen: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the epochs per second of a job, and the longest time without a new epoch in seconds.

    Args:
        seen: The times at which a client saw the job, in seconds, and its last epoch at these times.
    """
    if len(seen) < 2:
        return 0.0, float("inf")
    (began, first), (ended, last) = seen[0], seen[-1]
    changes = [began]
    epoch = first
    for time, each in seen:
        if each > epoch:
            changes.append(time)
            epoch = each
    changes.append(ended)
    pauses = [after - before for before, after in pairwise(changes)]
    return (last - first) / (ended - began), max(pauses)


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
