"""gradwire bench: runs the comparison in processes of its own, and shows it as tables, JSON and a picture."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gradwire.cli.bench.engine import Result
from gradwire.cli.bench.task import Device
from gradwire.cli.output import AsJson, print_json
from gradwire_engine.backend import gpu_module, processor_model

_TASKS = ("784-128-32-10:1,10,32,128,1024", "64-64-10:1,10,32,128,1024", "784-1024-1024-10:1,10,32,128,1024")
_GPU_TASKS = ("784-128-32-10:10,128,1024,8192",)
_FIGURES = {"training": "ratio", "whole epochs, with evaluation": "epoch_ratio"}


@dataclass(frozen=True)
class Report:
    """All results on one number of threads, or on a GPU."""

    device: str
    threads: int
    gemm_peak: float
    missing: dict[str, str]
    results: list[Result]


def bench(
    task: Annotated[list[str] | None, typer.Option(help="Widths and batch sizes, as 784-128-32-10:10,128.")] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Default: 1 and as many as there are.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each contender has at each task.")] = 7,
    only: Annotated[str, typer.Option(help="Peers to run against, with commas; default: all that are installed.")] = "",
    plot: Annotated[Path | None, typer.Option(help="Write the ratios to this picture; needs matplotlib.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="On the GPU instead of the CPU.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the engine with NumPy, PyTorch, JAX and scikit-learn on this machine's CPU, or on its GPU."""
    every = len(os.sched_getaffinity(0))
    if gpu:
        module, name = gpu_module()
        if module is None:
            raise typer.BadParameter(f"--gpu: there is no GPU here: {name}")
        runs: list[tuple[Device, str, int]] = [("gpu", name, every)]
    else:
        runs = [("cpu", processor_model(), count) for count in threads or sorted({1, every})]
    reports = []
    for device, name, count in runs:
        if count > every:
            raise typer.BadParameter(f"--threads {count}: this process may use {every} processors")
        tasks = task or list(_GPU_TASKS if gpu else _TASKS)
        report = Report(name, count, *_run(device, tasks, count, rounds, only))
        reports.append(report)
        if not as_json:
            _show(report)
    if as_json:
        print_json([asdict(report) for report in reports])
    if plot is not None:
        _plot(reports[0], plot)
        typer.echo(f"wrote {plot}", err=as_json)


def _run(
    device: Device, tasks: list[str], threads: int, rounds: int, only: str
) -> tuple[float, dict[str, str], list[Result]]:
    """Run the comparison in a child, whose libraries find their threads and processors set when they are loaded.

    Returns the peak of sgemm, the contenders that are missing and why, and the results.
    """
    command = [sys.executable, "-m", "gradwire.cli.bench.engine", f"--device={device}", f"--rounds={rounds}"]
    command += [f"--only={only}", *(f"--task={task}" for task in tasks)]
    one = "false" if threads == 1 else "true"
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    if device == "cpu":
        variables["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={one} intra_op_parallelism_threads={threads}"
        variables["JAX_PLATFORMS"] = "cpu"
    else:
        variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # Else JAX takes most of the GPU's memory for itself.
    # With the affinity of this process set for a moment, the child inherits it.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        child = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, before)
    assert child.stdout is not None
    with child, child.stdout as lines:
        head = json.loads(next(lines, "{}"))
        results = list(_results(lines))
    if child.returncode or not results:
        raise typer.Exit(child.returncode or 1)
    return head["gemm_peak"], head["missing"], results


def _results(lines: Iterator[str]) -> Iterator[Result]:
    for line in lines:
        values = json.loads(line)
        yield Result(**{**values, "widths": tuple(values["widths"])})


def _show(report: Report) -> None:
    console = Console(width=None if Console().is_terminal else 140)
    plural = "one thread" if report.threads == 1 else f"{report.threads} threads"
    console.print(f"\n{report.device}, {plural}; sgemm reaches {report.gemm_peak:.0f} GFLOP/s", highlight=False)
    for name, why in report.missing.items():
        console.print(f"left out: {name}, {why} (pip install 'gradwire\\[bench]')", highlight=False)
    names = list(dict.fromkeys(result.contender for result in report.results))
    for title, figure in _FIGURES.items():
        table = Table("network", "batch", title=f"time of each over gradwire's: {title}", title_justify="left")
        for heading in ("gradwire, us/step", "of sgemm", *names[1:]):
            table.add_column(heading, justify="right")
        for ours, *others in _by_task(report):
            share = f"{100 * ours.gflops / report.gemm_peak:.0f} %"
            ratios = [f"{getattr(other, figure):.2f}" for other in others]
            network = "-".join(map(str, ours.widths))
            table.add_row(network, str(ours.batch_size), f"{ours.step_microseconds:.1f}", share, *ratios)
        console.print(table)


def _by_task(report: Report) -> list[list[Result]]:
    tasks: dict[tuple[tuple[int, ...], int], list[Result]] = {}
    for result in report.results:
        tasks.setdefault((result.widths, result.batch_size), []).append(result)
    return list(tasks.values())


def _plot(report: Report, path: Path) -> None:
    """The ratios over the batch size, one picture for each network."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)

    networks = list(dict.fromkeys(result.widths for result in report.results))
    figure = Figure(figsize=(5 * len(networks), 4), layout="constrained")
    for axes, widths in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        rows = [task for task in _by_task(report) if task[0].widths == widths]
        batches = [ours.batch_size for ours, *_ in rows]
        for index, other in enumerate(rows[0][1:], start=1):
            axes.plot(batches, [row[index].ratio for row in rows], marker="o", markersize=4, label=other.contender)
        axes.axhline(1, color="black", linewidth=1, label="gradwire")
        axes.set(xscale="log", yscale="log", xlabel="batch size", title="-".join(map(str, widths)))
        axes.set_xticks(batches, map(str, batches))
        axes.set_ylabel("time of an epoch's training / gradwire's")
        axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
