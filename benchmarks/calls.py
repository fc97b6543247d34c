"""Compares the calls GetJob and Predict with a bare gRPC server that does the same work, one and many at a time."""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np

import gradwire as gw
from benchmarks.printing import line
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential
from gradwire_engine.backend import processor_model
from gradwire_engine.spec.tensors import to_tensor
from gradwire_proto.v1.model_service_pb2 import PredictRequest
from gradwire_proto.v1.training_service_pb2 import GetJobRequest

ROUNDS, ROUND_SECONDS, MANY = 5, 1.0, 50


def main() -> None:
    """Run the benchmark, and print the rates, the latencies and the ratios to the bare server."""
    print(f"\ncalls, on {processor_model()}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory(prefix="gradwire-bench-") as folder:
        data, model_file = Path(folder, "data"), Path(folder, "model.npz")
        with gw.LocalServer(data=data) as server:
            inputs = _train(server.address, model_file)
            command = [sys.executable, "-m", "benchmarks.bare_server", str(data / "gradwire.db"), str(model_file)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare:
                assert bare.stdout is not None
                addresses = {"gradwire": server.address, "bare": bare.stdout.readline().strip()}
                try:
                    asyncio.run(_compare(addresses, inputs))
                finally:
                    bare.terminate()


def _train(address: str, model_file: Path) -> np.ndarray:
    """Train a model of small images, save it, and return one row of inputs."""
    rng = np.random.default_rng(0)
    X, y = rng.random((500, 64), dtype=np.float32), rng.integers(0, 10, 500)
    model = Sequential(Linear(64, 32), ReLU(), Linear(32, 10))
    with gw.Client(address) as client:
        options = {"loss": CrossEntropy(), "optimizer": SGD(model), "epochs": 2}
        client.jobs.submit(model, (X, y), **options, name="digits").result()
    gw.save(model, model_file)
    return X[:1]


async def _compare(addresses: dict[str, str], inputs: np.ndarray) -> None:
    requests = {
        "/gradwire.v1.TrainingService/GetJob": GetJobRequest(name="jobs/digits").SerializeToString(),
        "/gradwire.v1.ModelService/Predict": PredictRequest(
            name="models/digits", inputs=to_tensor(inputs)
        ).SerializeToString(),
    }
    channels = {name: grpc.aio.insecure_channel(address) for name, address in addresses.items()}
    for path, request in requests.items():
        for concurrent in (1, MANY):
            rates: dict[str, list[float]] = {name: [] for name in channels}
            delays: dict[str, list[float]] = {name: [] for name in channels}
            for _ in range(ROUNDS):  # The servers take turns, so that both see the same machine.
                for name, channel in channels.items():
                    rate, seconds = await _round(channel.unary_unary(path), request, concurrent)
                    rates[name].append(rate)
                    delays[name] += seconds
            method = path.rpartition("/")[2]
            ratio = statistics.median(own / bare for own, bare in zip(rates["gradwire"], rates["bare"], strict=True))
            for name in channels:
                cuts = statistics.quantiles(delays[name], n=100)
                line(
                    f"{method}, {concurrent} at a time, {name}",
                    f"{statistics.median(rates[name]):.0f} a second",
                    f"p50 {1000 * cuts[49]:.2f} ms, p99 {1000 * cuts[98]:.2f} ms"
                    + (f"; {1 / ratio:.2f} times the time of the bare server" if name == "gradwire" else ""),
                )
    for channel in channels.values():
        await channel.close()


async def _round(call: grpc.aio.UnaryUnaryMultiCallable, request: bytes, concurrent: int) -> tuple[float, list[float]]:
    """Call repeatedly for a second. Returns the calls a second and the duration of each call, in seconds."""
    seconds: list[float] = []
    began = time.perf_counter()

    async def repeat() -> None:
        while time.perf_counter() - began < ROUND_SECONDS:
            started = time.perf_counter()
            await call(request)
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(repeat() for _ in range(concurrent)))
    return len(seconds) / (time.perf_counter() - began), seconds
