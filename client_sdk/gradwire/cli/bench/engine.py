"""python -m gradwire.cli.bench.engine: runs the contenders in turn on one task after the other, and prints JSON.

`gradwire bench` starts this in a process whose processors and threads are set before any library is loaded.
"""

import argparse
import json
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from gradwire.cli.bench.contenders import CONTENDERS, missing
from gradwire.cli.bench.task import Device, Task
from gradwire_engine.backend import gpu_module

# After one step all must have the same weights. After more, a unit whose input is about 0 may be on for one contender
# and off for another: each of them is off by 1e-2 from float64 after some number of steps.
_COMPARED_STEPS = 1
_MAX_DIFFERENCE = 1e-3
# The threads of BLAS and OpenMP stay awake for a while after their work, at the cost of whoever comes next.
_REST_SECONDS = 0.2
# About how long an epoch of a contender should take: long enough to time, short enough to take turns.
_EPOCH_FLOPS = 2e9
_PEAK_SIZE: dict[Device, int] = {"cpu": 2048, "gpu": 8192}


@dataclass(frozen=True)
class Result:
    """A contender on a task: median seconds, and its times over gradwire's round by round, as medians."""

    widths: tuple[int, ...]
    batch_size: int
    contender: str
    step_microseconds: float
    ratio: float
    # A whole epoch as the chapter has it: training, then evaluation of all rows.
    epoch_ratio: float
    gflops: float
    # Of the first layer's weights after a step, relative to how far gradwire's have moved.
    difference: float


def run(device: Device, widths: tuple[int, ...], batch_size: int, names: list[str], rounds: int) -> list[Result]:
    """Time the contenders, of which the first is gradwire, in turn."""
    step_flops = 6 * batch_size * sum(a * b for a, b in pairwise(widths))
    steps = int(max(10, min(2000, _EPOCH_FLOPS / step_flops)))
    task = Task.of(widths, batch_size, steps * batch_size)
    differences = _differences(device, widths, batch_size, names)
    contenders = {name: CONTENDERS[device][name](task) for name in names}
    for contender in contenders.values():
        contender.train_epoch()
        contender.evaluate()
    training: dict[str, list[float]] = {name: [] for name in names}
    evaluating: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, contender in contenders.items():
            time.sleep(_REST_SECONDS)
            training[name].append(_seconds(contender.train_epoch))
            evaluating[name].append(_seconds(contender.evaluate))
    results = []
    for name in names:
        step = statistics.median(training[name]) / steps
        ratio = _ratio(training[name], training[names[0]])
        whole = [[a + b for a, b in zip(training[n], evaluating[n], strict=True)] for n in (name, names[0])]
        results.append(
            Result(
                widths,
                batch_size,
                name,
                step * 1e6,
                ratio,
                _ratio(*whole),
                _useful_flops(task) / step / 1e9,
                differences[name],
            )
        )
    return results


def _useful_flops(task: Task) -> float:
    """What a step needs at least: forward, weight gradients, and input gradients of all layers but the first."""
    sizes = [layer.in_features * layer.out_features for layer in task.network.layers]
    return 2 * task.batch_size * (3 * sum(sizes) - sizes[0])


def _differences(device: Device, widths: tuple[int, ...], batch_size: int, names: list[str]) -> dict[str, float]:
    """Let all take the same step; ArithmeticError if they do not come to the same weights."""
    task = Task.of(widths, batch_size, _COMPARED_STEPS * batch_size)
    after = {}
    for name in names:
        contender = CONTENDERS[device][name](task)
        contender.train_epoch()
        after[name] = contender.first_weights()
    ours = after[names[0]]
    moved = np.linalg.norm(ours - task.parameters()[0][0])
    differences = {name: float(np.linalg.norm(weights - ours) / moved) for name, weights in after.items()}
    for name, difference in differences.items():
        if not difference < _MAX_DIFFERENCE:
            raise ArithmeticError(f"{name} comes to other weights at {widths}, batch {batch_size}: {difference:.1e}")
    return differences


def _seconds(work: object) -> float:
    assert callable(work)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def gemm_peak(device: Device) -> float:
    """Return the GFLOP/s of sgemm on large matrices: NumPy's on this process's threads, or CuPy's, without TF32."""
    a = np.random.default_rng(0).random((_PEAK_SIZE[device],) * 2, np.float32)
    cupy = gpu_module()[0] if device == "gpu" else None
    if cupy is not None:
        a = cupy.asarray(a)

    def multiply() -> None:
        a @ a
        if cupy is not None:
            cupy.cuda.Device().synchronize()

    best = min(_seconds(multiply) for _ in range(5))
    return 2 * _PEAK_SIZE[device] ** 3 / best / 1e9


def main() -> None:
    """Print a line of JSON for the peak, and one for each result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", action="append", required=True, help="widths:batch,batch")
    parser.add_argument("--device", choices=list(CONTENDERS), required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="names of contenders, with commas")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    all_, absent = CONTENDERS[arguments.device], missing(arguments.device)
    wanted = arguments.only.split(",") if arguments.only else list(all_)
    names = [name for name in all_ if name == "gradwire" or (name in wanted and name not in absent)]
    print(json.dumps({"gemm_peak": gemm_peak(arguments.device), "missing": absent}), flush=True)
    for each in arguments.task:
        widths, batches = each.split(":")
        for batch in batches.split(","):
            shape = tuple(map(int, widths.split("-")))
            for result in run(arguments.device, shape, int(batch), names, arguments.rounds):
                print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
