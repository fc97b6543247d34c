"""Benchmarks of the event log: epochs per second with one watcher, delays with many watchers, and a long queue."""

import asyncio
import os
import signal
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

import gradwire as gw
from benchmarks.printing import line
from gradwire import SGD, CrossEntropy, Linear, Sequential
from gradwire._access import Access
from gradwire._transport import Transport
from gradwire._uploads import upload
from gradwire_engine.backend import processor_model
from gradwire_engine.spec.tensors import tensor_ref
from gradwire_proto.v1.spec_pb2 import Dataset, JobSpec
from gradwire_proto.v1.spec_pb2 import Sgd as SgdMessage
from gradwire_proto.v1.tensor_pb2 import TensorRef
from gradwire_proto.v1.training_service_pb2 import (
    CancelJobRequest,
    CreateJobRequest,
    Job,
    JobState,
    ListJobsRequest,
    WatchJobRequest,
)
from gradwire_proto.v1.training_service_pb2_grpc import TrainingServiceStub

SHORT_EPOCHS = 200_000
STOPPING_EPOCHS = 20_000
JOBS, WATCHERS_PER_JOB, JOB_EPOCHS = 100, 10, 200
QUEUED = 10_000


def main() -> None:
    """Run the benchmarks, and print each result with its target value."""
    print(f"\nevent log, on {processor_model()}, {os.cpu_count()} cores\n")
    with gw.LocalServer() as server:
        _short_epochs(server)
        _early_stopping(server)
        asyncio.run(_many_watchers(server))
    with tempfile.TemporaryDirectory(prefix="gradwire-bench-") as folder:
        asyncio.run(_long_queue(gw.LocalServer(data=Path(folder))))


def _short_epochs(server: gw.LocalServer) -> None:
    """Measure how many epochs per second are stored and received by a watcher, with a job of very short epochs."""
    model = Sequential(Linear(2, 2))
    X, y = np.eye(2, dtype=np.float32), np.arange(2)
    with gw.Client(server.address) as client:
        job = client.jobs.submit(
            model, (X, y), loss=CrossEntropy(), optimizer=SGD(model, lr=0.1), epochs=SHORT_EPOCHS, batch_size=2
        )
        epochs = job.epochs()
        first = next(epochs)
        started = time.perf_counter()
        last = max(epoch.epoch for epoch in epochs)
        seconds = time.perf_counter() - started
        assert (first.epoch, last) == (1, SHORT_EPOCHS)
    rate = (last - 1) / seconds
    line(f"{SHORT_EPOCHS} epochs of one step, stored and watched", f"{rate:,.0f} epochs/s", "aim: 10,000 or more")


def _early_stopping(server: gw.LocalServer) -> None:
    """Measure the cost of early stopping with very short epochs, each of which is better than the previous one."""
    variants = {
        "without early stopping": {},
        "early stopping, last weights": {"early_stopping": _stopping(restore_best=False)},
        "early stopping, best weights": {"early_stopping": _stopping(restore_best=True), "keep": "best"},
    }
    with gw.Client(server.address) as client:
        rates: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(3):  # The runs alternate, so that all of them see the same disturbances.
            for name, options in variants.items():
                rates[name].append(_epochs_per_second(client, **options))
    plain = statistics.median(rates["without early stopping"])
    for name, runs in rates.items():
        rate = statistics.median(runs)
        shown = ", ".join(f"{each:,.0f}" for each in runs)
        line(
            f"{STOPPING_EPOCHS} epochs, {name}",
            f"{rate:,.0f} epochs/s",
            f"{rate / plain:.2f} of the first; runs {shown}",
        )


def _stopping(*, restore_best: bool) -> gw.EarlyStopping:
    return gw.EarlyStopping(monitor="train.loss", patience=STOPPING_EPOCHS, restore_best=restore_best)


def _epochs_per_second(client: gw.Client, **options: Any) -> float:
    """Run a job of very short epochs, and return the rate at which its epochs are stored."""
    model = Sequential(Linear(2, 2))
    X, y = np.eye(2, dtype=np.float32), np.arange(2)
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.1), "epochs": STOPPING_EPOCHS, "batch_size": 2}
    job = client.jobs.submit(model, (X, y), **arguments, **options)
    next(job.epochs())
    started = time.perf_counter()
    job.wait()
    return STOPPING_EPOCHS / (time.perf_counter() - started)


async def _many_watchers(server: gw.LocalServer) -> None:
    """Measure the delay between storing and receiving an event, with several watchers for each job.

    Other jobs occupy all workers until everyone is watching.
    """
    delays: list[float] = []
    received: list[int] = []
    spec = await _spec(server.address, JOB_EPOCHS)
    everyone = asyncio.Barrier(JOBS * WATCHERS_PER_JOB + 1)
    # There are ten watchers on each connection.
    channels = [grpc.aio.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(JOBS)]

    async def watch(channel: grpc.aio.Channel, name: str) -> None:
        last = 0
        async for response in TrainingServiceStub(channel).WatchJob(WatchJobRequest(name=name)):
            now = time.time_ns()
            for event in response.events:
                assert event.sequence == last + 1, "an event is missing or repeated"
                last = event.sequence
                if last > 1:
                    delays.append((now - event.time.ToNanoseconds()) / 1e6)
            if last == 1:  # The job is queued.
                await everyone.wait()
        received.append(last)

    holding = await _spec(server.address, 1_000_000)
    holders = [await _create(channels[0], holding) for _ in range(2 * (os.cpu_count() or 1))]
    jobs = [await _create(channel, spec) for channel in channels]
    watches = [
        watch(channel, job.name) for channel, job in zip(channels, jobs, strict=True) for _ in range(WATCHERS_PER_JOB)
    ]
    memory = psutil.Process(server.process.pid).memory_info
    running = asyncio.gather(*watches)
    await everyone.wait()
    started = time.perf_counter()
    for job in holders:
        await TrainingServiceStub(channels[0]).CancelJob(CancelJobRequest(name=job.name))
    peak = 0
    while not running.done():
        peak = max(peak, memory().rss)
        await asyncio.sleep(0.1)
    await running
    seconds = time.perf_counter() - started
    assert set(received) == {max(received)}, "not everyone saw every event"
    for channel in channels:
        await channel.close()
    cuts = statistics.quantiles(delays, n=100)
    what = f"{JOBS} jobs, {len(watches)} watchers: events received"
    line(what, f"{sum(received):,}", f"all of them, {sum(received) / seconds:,.0f} a second")
    line("  from stored to received: p50", f"{cuts[49]:.1f} ms", "")
    line("                           p99", f"{cuts[98]:.1f} ms", "")
    line("  memory of the server", f"{peak / 1e6:.0f} MB", "")


async def _long_queue(server: gw.LocalServer) -> None:
    """Measure how a long queue slows down new jobs and the server's start."""
    server.start()
    spec = await _spec(server.address, 1_000_000)
    async with grpc.aio.insecure_channel(server.address) as channel:
        started = time.perf_counter()
        for _ in range(QUEUED // 100):
            await asyncio.gather(*(_create(channel, spec) for _ in range(100)))
        line(f"{QUEUED:,} jobs submitted, 100 at a time", f"{QUEUED / (time.perf_counter() - started):,.0f} jobs/s", "")
        training = TrainingServiceStub(channel)
        pages, submits = [], []
        for _ in range(50):
            began = time.perf_counter()
            page = await training.ListJobs(ListJobsRequest(page_size=50, filter="state = QUEUED"))
            pages.append(time.perf_counter() - began)
            assert len(page.jobs) == 50
            began = time.perf_counter()
            await _create(channel, spec)
            submits.append(time.perf_counter() - began)
        line("  to list a page of 50: median", f"{1000 * statistics.median(pages):.1f} ms", "")
        line("  to submit one more: median", f"{1000 * statistics.median(submits):.1f} ms", "")
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    started = time.perf_counter()
    server.start()
    line("  killed and started again, to ready", f"{time.perf_counter() - started:.2f} s", "")
    async with grpc.aio.insecure_channel(server.address) as channel:
        page = await TrainingServiceStub(channel).ListJobs(ListJobsRequest(page_size=1, filter="state = RUNNING"))
        while not page.jobs:
            page = await TrainingServiceStub(channel).ListJobs(ListJobsRequest(page_size=1, filter="state = RUNNING"))
        line("  ... and until a job runs", f"{time.perf_counter() - started:.2f} s", "")
        assert page.jobs[0].state == JobState.JOB_STATE_RUNNING
    server.stop()


async def _spec(address: str, epochs: int) -> JobSpec:
    """Upload a small job's data, and return its spec."""
    rng = np.random.default_rng(0)
    X, y = rng.random((64, 8), dtype=np.float32), rng.integers(0, 3, 64)
    references = {name: tensor_ref(array) for name, array in (("X", X), ("y", y))}
    transport = Transport(address, Access())
    arrays = {references["X"].sha256: X, references["y"].sha256: y}
    await upload(transport, list(references.values()), arrays)
    await transport.close()
    return _job_spec(references["X"], references["y"], epochs)


def _job_spec(inputs: TensorRef, targets: TensorRef, epochs: int) -> JobSpec:
    spec = JobSpec(train=Dataset(inputs=inputs, targets=targets), epochs=epochs, batch_size=8)
    spec.loss.cross_entropy.SetInParent()
    spec.optimizer.sgd.CopyFrom(SgdMessage(learning_rate=0.05))
    spec.model.layers.add(name="fc1").linear.out_features = 16
    spec.model.layers.add(name="relu").relu.SetInParent()
    spec.model.layers.add(name="fc2").linear.out_features = 3
    return spec


async def _create(channel: grpc.aio.Channel, spec: JobSpec) -> Job:
    request = CreateJobRequest(job=Job(spec=spec), request_id=str(uuid.uuid4()))
    return await TrainingServiceStub(channel).CreateJob(request)
