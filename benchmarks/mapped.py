"""A benchmark of the speed and memory use of training on data in a memory-mapped file."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.printing import line
from gradwire_engine.backend import Array, processor_model
from gradwire_engine.examples import Examples
from gradwire_engine.losses import CrossEntropy
from gradwire_engine.network import Network
from gradwire_engine.plans import Problem, choose_plan

ROWS, FEATURES, BATCH = 1_500_000, 784, 128
IN_MEMORY_ROWS = 200_000


def main() -> None:
    """Print the cost of an epoch with a large mapped file, and with a part of the file in memory."""
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"\nmapped data, on one core of {processor_model()}\n")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="gradwire-bench-") as folder:
        path = Path(folder, "inputs")
        with path.open("wb") as file:
            for _ in range(ROWS // 50_000):
                file.write(rng.integers(0, 255, (50_000, FEATURES), dtype=np.uint8).tobytes())
        inputs = np.memmap(path, np.uint8, "r", shape=(ROWS, FEATURES))
        what = f"{path.stat().st_size / 1e9:.1f} GB mapped, {ROWS:,} rows, in random order"
        _epoch(what, inputs)
        _epoch(f"  {IN_MEMORY_ROWS:,} of them in memory", np.array(inputs[:IN_MEMORY_ROWS]))


def _epoch(what: str, inputs: Array) -> None:
    rng = np.random.default_rng(1)
    network = Network.from_stack([(FEATURES, 128), None, (128, 32), None, (32, 10)])
    weights = (rng.standard_normal(network.size) * 0.05).astype(np.float32)
    plan = choose_plan(Problem(network, CrossEntropy(), np.dtype(np.float32)), weights, "cpu").plan
    placed = plan.place(Examples.of(inputs, rng.integers(0, 10, len(inputs)), classification=True))
    order = rng.permutation(len(inputs))
    before, started = _unshared_memory(), time.perf_counter()
    plan.train(placed, order, BATCH, 1e-4, 0.0)
    seconds = time.perf_counter() - started
    grown = (_unshared_memory() - before) / 1e6
    line(what, f"{1e6 * seconds / (len(inputs) / BATCH):.0f} us/step", f"unshared memory grew by {grown:.0f} MB")


def _unshared_memory() -> int:
    """Return the resident memory that is not shared, in bytes. This excludes mapped files, which are shared."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)
