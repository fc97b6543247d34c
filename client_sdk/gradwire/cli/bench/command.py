"""The command `gradwire bench`, which prints the comparison as tables or JSON, and plots it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gradwire.cli.bench.report import TASKS, Comparison, Report, by_task, compare, to_text
from gradwire.cli.bench.task import Device
from gradwire.cli.output import AsJson, print_json
from gradwire_engine.backend import gpu_module, processor_model


def bench(
    task: Annotated[
        list[str] | None,
        typer.Option(help="Layer widths and batch sizes, for example 784-128-32-10:10,128. Can be repeated."),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="The number of threads. Can be repeated. Default: 1 and the number of processors."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="The number of measurements of each library on each task.")] = 7,
    only: Annotated[
        str, typer.Option(help="The libraries to compare with, separated by commas. Default: all that are installed.")
    ] = "",
    plot: Annotated[Path | None, typer.Option(help="Plot the ratios to this image file. Requires matplotlib.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on the GPU instead of the CPU.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the engine with NumPy, PyTorch, JAX and scikit-learn on the CPU or the GPU of this machine."""
    processors = len(os.sched_getaffinity(0))
    device: Device = "gpu" if gpu else "cpu"
    module, found = gpu_module() if gpu else (None, processor_model())
    if gpu and module is None:
        raise typer.BadParameter(f"--gpu: no GPU can be used on this machine: {found}")
    reports = []
    for count in [processors] if gpu else threads or sorted({1, processors}):
        if count > processors:
            raise typer.BadParameter(f"--threads {count}: this process may use only {processors} processors")
        report = compare(Comparison(device, found, count, task or TASKS[device], rounds, only))
        reports.append(report)
        if not as_json:
            typer.echo("\n" + to_text(report))
            if any("not installed" in reason for reason in report.missing.values()):
                typer.echo("\nTo install the missing libraries: pip install 'gradwire[bench]'")
    if as_json:
        print_json([asdict(report) for report in reports])
    if any(report.error for report in reports):
        raise typer.Exit(1)
    if plot is not None:
        _plot(reports[0], plot)
        typer.echo(f"wrote {plot}", err=as_json)


def _plot(report: Report, path: Path) -> None:
    """Plot the ratios against the batch size, with one diagram for each network."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)

    networks = list(dict.fromkeys(result.widths for result in report.results))
    peers = list(dict.fromkeys(result.contender for result in report.results))[1:]
    figure = Figure(figsize=(5 * len(networks), 4), layout="constrained")
    for axes, widths in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        tasks = [task for task in by_task(report) if task[0].widths == widths]
        batches = [ours.batch_size for ours, *_ in tasks]
        for peer in peers:
            points = [(each.batch_size, each.ratio) for task in tasks for each in task if each.contender == peer]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=peer)
        axes.axhline(1, color="black", linewidth=1, label="gradwire")
        axes.set(xscale="log", yscale="log", xlabel="batch size", title="-".join(map(str, widths)))
        axes.set_xticks(batches, map(str, batches))
        axes.set_ylabel("training time per epoch, relative to gradwire")
        axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
