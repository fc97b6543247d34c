"""Benchmarks of the service: time to the first epoch, remote and local training, upload speed, startup and memory."""

import asyncio
import itertools
import os
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import gradwire as gw
from benchmarks.printing import line
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire._access import Access
from gradwire._transport import Transport
from gradwire._uploads import upload
from gradwire_engine.backend import processor_model
from gradwire_engine.spec.tensors import tensor_ref

TINY_JOBS = 200
MANY_JOBS = 100
UPLOAD_BYTES = 200_000_000
# The long job, which takes about 10 s on one core.
LONG_ROWS, LONG_EPOCHS = 60_000, 30


def main() -> None:
    """Run the benchmarks, and print each result with its target value."""
    print(f"\nservice, on {processor_model()}, {os.cpu_count()} cores\n")
    started = time.perf_counter()
    with gw.LocalServer() as server:
        line("start of `gradwire serve` to ready", f"{time.perf_counter() - started:.2f} s", "")
        with gw.Client(server.address) as client:
            _first_epoch(client)
            _many_jobs(client, server)
            _memory(server)
            _remote_against_local(server)
            _upload(server)


def _model(*widths: int) -> Sequential:
    gw.seed(0)
    layers = [Linear(a, b) for a, b in itertools.pairwise(widths)]
    return Sequential(*[module for layer in layers for module in (layer, ReLU())][:-1])


def _first_epoch(client: gw.Client) -> None:
    """Measure the time from the submit call to the arrival of the first epoch."""
    X, y = np.random.default_rng(0).random((64, 8), dtype=np.float32), np.arange(64) % 3
    times = []
    for _ in range(TINY_JOBS):
        model = _model(8, 8, 3)
        started = time.perf_counter()
        job = client.jobs.submit(model, (X, y), loss=CrossEntropy(), optimizer=SGD(model), epochs=1)
        next(job.epochs())
        times.append(1000 * (time.perf_counter() - started))
        job.result()
    cuts = statistics.quantiles(times[5:], n=100)
    line(f"submit to first epoch, warm, {TINY_JOBS} tiny jobs: p50", f"{cuts[49]:.1f} ms", "aim: under 25 ms")
    line("                                              p99", f"{cuts[98]:.1f} ms", "")


def _many_jobs(client: gw.Client, server: gw.LocalServer) -> None:
    """Measure the time for many tiny jobs at once, from the first submit call to the last result."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    rng = np.random.default_rng(0)
    data = rng.random((1797, 64), dtype=np.float32), rng.integers(0, 10, 1797)
    for epochs, aim in ((1, "0.5 s"), (20, "0.8 s")):
        seconds, cpu = [], []
        for _ in range(5):
            used, started = sum(process.cpu_times()[:2]), time.perf_counter()
            jobs = []
            for _ in range(MANY_JOBS):
                model = _model(64, 32, 10)
                options = {"loss": CrossEntropy(), "optimizer": SGD(model), "epochs": epochs, "batch_size": 32}
                jobs.append(client.jobs.submit(model, data, **options))
            for job in jobs:
                job.result()
            seconds.append(time.perf_counter() - started)
            cpu.append(1000 * (sum(process.cpu_times()[:2]) - used) / MANY_JOBS)
        figure = f"{MANY_JOBS} jobs of {epochs} epoch{'s' if epochs > 1 else ''} at once"
        line(figure, f"{statistics.median(seconds[1:]):.2f} s", f"aim: {aim}")
        line("  processor time of the server for each", f"{statistics.median(cpu[1:]):.1f} ms", "aim: 2 ms")


def _memory(server: gw.LocalServer) -> None:
    process = psutil.Process(server.process.pid)
    workers = [p for p in process.children(recursive=True) if "ray::Trainer" in " ".join(p.cmdline())]
    line("resident memory of the server", f"{process.memory_info().rss / 1e6:.0f} MB", "")
    line("resident memory of a worker", f"{max(w.memory_info().rss for w in workers) / 1e6:.0f} MB", "")


def _remote_against_local(server: gw.LocalServer) -> None:
    """Run the same job remotely and locally in turn, each on one thread, as a worker does."""
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = np.random.default_rng(0)
    X, y = rng.random((LONG_ROWS, 784), dtype=np.float32), rng.integers(0, 10, LONG_ROWS)
    ratios, seconds = [], []
    for _ in range(3):
        pair = {}
        for at in (server.address, "local"):
            model = _model(784, 128, 32, 10)
            started = time.perf_counter()
            gw.fit(model, (X, y), loss=CrossEntropy(), optimizer=SGD(model), epochs=LONG_EPOCHS, batch_size=64, at=at)
            pair[at] = time.perf_counter() - started
        ratios.append(pair[server.address] / pair["local"])
        seconds.append(pair["local"])
    figure = f"a job of {statistics.median(seconds):.1f} s: remote / local"
    line(figure, f"{statistics.median(ratios):.3f}", f"aim: within 1.03; runs {', '.join(f'{r:.3f}' for r in ratios)}")


def _upload(server: gw.LocalServer) -> None:
    """Measure the time to upload and store 200 MB of new data over loopback, and the server's memory use meanwhile."""
    process = psutil.Process(server.process.pid)
    peak, done = 0, threading.Event()

    def unshared_memory() -> int:
        memory = process.memory_info()
        return memory.rss - memory.shared

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, unshared_memory())

    async def send(array: np.ndarray) -> float:
        transport = Transport(server.address, Access())
        await transport.health()  # Connect first, so that the result does not include the connection time.
        reference = tensor_ref(array)
        started = time.perf_counter()
        await upload(transport, [reference], {reference.sha256: array})
        seconds = time.perf_counter() - started
        await transport.close()
        return array.nbytes / 1e6 / seconds

    before = unshared_memory()
    watcher = threading.Thread(target=watch)
    watcher.start()
    rates, bare_rates = [], []
    for run in range(5):
        array = np.random.default_rng(run).random(UPLOAD_BYTES // 4, dtype=np.float32)
        rates.append(asyncio.run(send(array)))
        bare_rates.append(_bare_write(server.data / "bare", memoryview(array).cast("B")))
    done.set()
    watcher.join()
    runs = ", ".join(f"{rate:.0f}" for rate in rates)
    line("upload over loopback, 200 MB", f"{statistics.median(rates):.0f} MB/s", f"aim: 500 MB/s or more; runs {runs}")
    runs = ", ".join(f"{rate:.0f}" for rate in bare_rates)
    line("  for comparison: the same bytes written and synced", f"{statistics.median(bare_rates):.0f} MB/s", runs)
    line("growth of the memory of the server during uploads", f"{(peak - before) / 1e6:.0f} MB", "bounded by chunks")


def _bare_write(path: Path, data: memoryview) -> float:
    """Return the write rate without gRPC and digests, in MB/s. The file is kept, like a blob."""
    with path.with_suffix(f".{time.monotonic_ns()}").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])
        os.fsync(file.fileno())
        return len(data) / 1e6 / (time.perf_counter() - started)
