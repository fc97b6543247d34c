"""Runs a comparison in a child process and converts the results to tables. This module depends only on the engine."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradwire.cli.bench.engine import Result
from gradwire.cli.bench.task import Device

TASKS: dict[Device, tuple[str, ...]] = {
    "cpu": ("784-128-32-10:1,10,32,128,1024", "64-64-10:1,10,32,128,1024", "784-1024-1024-10:1,10,32,128,1024"),
    "gpu": ("784-128-32-10:10,128,1024,8192",),
}
# The module that the child process runs.
ENGINE = (sys.executable, "-m", "gradwire.cli.bench.engine")
_FIGURES = {"training": "ratio", "whole epochs, with evaluation": "epoch_ratio"}


@dataclass(frozen=True)
class Comparison:
    """The settings of a comparison.

    Attributes:
        device: The device on which the contenders run.
        device_name: The name of the processor or GPU.
        threads: The number of threads and processors that the contenders may use.
        tasks: The widths and batch sizes, for example "784-128-32-10:10,128".
        rounds: The number of turns for each contender on each task.
        only: The other libraries to run, separated by commas, or "" for all.
        timeout: The time after which the comparison is stopped, in seconds.
    """

    device: Device
    device_name: str
    threads: int
    tasks: Sequence[str]
    rounds: int
    only: str = ""
    timeout: float | None = None


@dataclass(frozen=True)
class Report:
    """The results of a comparison.

    Attributes:
        device: The name of the processor or GPU.
        threads: The number of threads that the contenders could use.
        gemm_peak: The GFLOP/s of sgemm on large matrices.
        missing: The contenders that could not run, and the reasons.
        results: The results for each task.
        error: The reason why the comparison ended early, if it did.
    """

    device: str
    threads: int
    gemm_peak: float
    missing: dict[str, str]
    results: list[Result]
    error: str | None = None


def compare(comparison: Comparison, engine: Sequence[str] = ENGINE) -> Report:
    """Run a comparison in a child process, so that threads and processors are set before libraries are loaded."""
    child = _start(comparison, engine)
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        os.killpg(child.pid, signal.SIGKILL)  # This also kills the processes that libraries start for compiling.

    timer = threading.Timer(comparison.timeout or threading.TIMEOUT_MAX, stop)
    timer.daemon = True
    with child:
        timer.start()
        assert child.stdout is not None
        try:
            lines = [json.loads(line) for line in child.stdout if line.endswith("\n")]
        except BaseException:
            stop()
            raise
        finally:
            timer.cancel()
    head, *parts = lines or [{}]
    error = None
    if child.returncode:
        error = f"stopped after {comparison.timeout:.0f} s" if stopped.is_set() else f"exit status {child.returncode}"
    return Report(
        device=comparison.device_name,
        threads=comparison.threads,
        gemm_peak=head.get("gemm_peak", 0.0),
        missing=head.get("missing", {}) | _failures(parts),
        results=[
            Result(**{**values, "widths": tuple(values["widths"])}) for part in parts for values in part["results"]
        ],
        error=error,
    )


def _start(comparison: Comparison, engine: Sequence[str]) -> "subprocess.Popen[str]":
    command = [*engine, f"--device={comparison.device}", f"--rounds={comparison.rounds}", f"--only={comparison.only}"]
    command += [f"--task={task}" for task in comparison.tasks]
    threads = comparison.threads
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if comparison.device == "cpu":
        many = "false" if threads == 1 else "true"
        variables["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={many} intra_op_parallelism_threads={threads}"
        variables["JAX_PLATFORMS"] = "cpu"
    else:
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # By default, JAX would allocate most of the GPU memory.
    # The child inherits this process's temporary affinity.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        environment = {**os.environ, **variables}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    finally:
        os.sched_setaffinity(0, before)


def _failures(parts: list[dict[str, dict[str, str]]]) -> dict[str, str]:
    return {name: error for part in parts for name, error in part["failed"].items()}


def to_text(report: Report) -> str:
    """Return the tables of a report as Markdown."""
    threads = "one thread" if report.threads == 1 else f"{report.threads} threads"
    lines = [f"{report.device}, {threads}; sgemm reaches {report.gemm_peak:.0f} GFLOP/s"]
    lines += [f"left out: {name}, {reason}" for name, reason in report.missing.items()]
    peers = list(dict.fromkeys(result.contender for result in report.results))[1:]
    for title, figure in _FIGURES.items():
        rows = [["network", "batch", "gradwire, us/step", "of sgemm", *peers]]
        rows += [_row(results, figure, report.gemm_peak, peers) for results in by_task(report)]
        lines += ["", f"time relative to gradwire: {title}", *_table(rows)]
    if report.error:
        lines += ["", f"the comparison is incomplete: {report.error}"]
    return "\n".join(lines)


def by_task(report: Report) -> list[list[Result]]:
    """Return the results for each task. The result of gradwire comes first."""
    tasks: dict[tuple[tuple[int, ...], int], list[Result]] = {}
    for result in report.results:
        tasks.setdefault((result.widths, result.batch_size), []).append(result)
    return list(tasks.values())


def _row(results: list[Result], figure: str, peak: float, peers: list[str]) -> list[str]:
    ours = results[0]
    ratios = {result.contender: f"{getattr(result, figure):.2f}" for result in results}
    network = "-".join(map(str, ours.widths))
    share = f"{100 * ours.gflops / peak:.0f} %"
    return [network, str(ours.batch_size), f"{ours.step_microseconds:.1f}", share, *(ratios.get(p, "-") for p in peers)]


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table. The first column contains names, and the other columns contain numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|"
