"""Times the contenders in turn on each task. `python -m gradwire.cli.bench.engine` prints the results as lines of JSON.

`gradwire bench` runs this module in a child process, and sets its processors and threads before any library is loaded.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from gradwire.cli.bench.contenders import CONTENDERS, missing
from gradwire.cli.bench.task import Contender, Device, Task
from gradwire_engine.backend import Array, gpu_module

# After one step, all contenders must have the same weights. After more steps, the output of a ReLU can differ between
# contenders if its input is near 0, and eventually each contender differs from float64 by 1e-2.
_COMPARED_STEPS = 1
_MAX_DIFFERENCE = 1e-3
# BLAS and OpenMP threads keep their processors busy for a while after their work, which would slow down the next
# contender.
_REST_SECONDS = 0.2
# The approximate number of operations in an epoch. It is large enough to measure, and small enough for the contenders
# to take turns.
_EPOCH_FLOPS = 2e9
# The size of the square matrices for measuring sgemm's peak.
_PEAK_SIZE: dict[Device, int] = {"cpu": 2048, "gpu": 4096}


@dataclass(frozen=True)
class Result:
    """The result of a contender on a task. Times are medians over the rounds.

    Attributes:
        widths: The widths of the network.
        batch_size: The number of rows in a batch.
        contender: The contender's name.
        step_microseconds: The time of a training step.
        ratio: The training time divided by gradwire's, compared round by round.
        epoch_ratio: The ratio for a whole epoch, including the evaluation of all rows.
        gflops: A step's useful floating-point operations divided by its time, in GFLOP/s.
        difference: The difference from gradwire's weights in the first layer after a step, divided by the change of
            gradwire's weights in this step.
    """

    widths: tuple[int, ...]
    batch_size: int
    contender: str
    step_microseconds: float
    ratio: float
    epoch_ratio: float
    gflops: float
    difference: float


@dataclass(frozen=True)
class _Times:
    """The times of a contender in each round, in seconds."""

    training: list[float]
    evaluation: list[float]

    @property
    def epochs(self) -> list[float]:
        return [a + b for a, b in zip(self.training, self.evaluation, strict=True)]


def run(
    device: Device, widths: tuple[int, ...], batch_size: int, names: list[str], rounds: int
) -> tuple[list[Result], dict[str, str]]:
    """Time contenders on a task.

    Args:
        device: The device on which they run.
        widths: The widths of the network.
        batch_size: The number of rows in a batch.
        names: The contenders. The first contender is gradwire.
        rounds: The number of turns for each contender.

    Returns:
        The results, and the errors of failed contenders.

    Raises:
        ArithmeticError: A contender's weights differ from gradwire's.
    """
    step_flops = 6 * batch_size * sum(a * b for a, b in pairwise(widths))
    steps = int(max(10, min(2000, _EPOCH_FLOPS / step_flops)))
    task = Task.of(widths, batch_size, steps * batch_size)
    after, failed = _weights_after_a_step(device, widths, batch_size, names)
    differences = _differences(widths, batch_size, after)
    times = _time({name: CONTENDERS[device][name](task) for name in after}, rounds)
    ours = times[names[0]]
    results = []
    for name, theirs in times.items():
        step = statistics.median(theirs.training) / steps
        result = Result(
            widths=widths,
            batch_size=batch_size,
            contender=name,
            step_microseconds=step * 1e6,
            ratio=_ratio(theirs.training, ours.training),
            epoch_ratio=_ratio(theirs.epochs, ours.epochs),
            gflops=_useful_flops(task) / step / 1e9,
            difference=differences[name],
        )
        results.append(result)
    return results, failed


def _weights_after_a_step(
    device: Device, widths: tuple[int, ...], batch_size: int, names: list[str]
) -> tuple[dict[str, Array], dict[str, str]]:
    """Run the same training steps with every contender. Only gradwire must not fail; others are left out."""
    task = Task.of(widths, batch_size, _COMPARED_STEPS * batch_size)
    after: dict[str, Array] = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            contender = CONTENDERS[device][name](task)
            contender.train_epoch()
            after[name] = contender.first_weights()
        except Exception as error:  # Each library raises its own exception types.
            if name == names[0]:
                raise
            failed[name] = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    return after, failed


def _differences(widths: tuple[int, ...], batch_size: int, after: dict[str, Array]) -> dict[str, float]:
    """Compare all contenders' weights with the first contender's, after a step."""
    first = Task.of(widths, batch_size, _COMPARED_STEPS * batch_size).parameters()[0][0]
    ours = next(iter(after.values()))
    moved = np.linalg.norm(ours - first)
    differences = {name: float(np.linalg.norm(weights - ours) / moved) for name, weights in after.items()}
    for name, difference in differences.items():
        if not difference < _MAX_DIFFERENCE:
            raise ArithmeticError(
                f"the weights of {name} differ from gradwire's after a step of {widths}, batch {batch_size}: "
                f"they differ by {difference:.1e}"
            )
    return differences


def _time(contenders: dict[str, Contender], rounds: int) -> dict[str, _Times]:
    """Time the contenders in turn, after a warm-up epoch."""
    for contender in contenders.values():
        contender.train_epoch()
        contender.evaluate()
    times = {name: _Times([], []) for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            time.sleep(_REST_SECONDS)
            times[name].training.append(_seconds(contender.train_epoch))
            times[name].evaluation.append(_seconds(contender.evaluate))
    return times


def _useful_flops(task: Task) -> float:
    """Count the operations of a step: forward pass, weight gradients, and the input gradients of later layers."""
    sizes = [layer.in_features * layer.out_features for layer in task.network.layers]
    return 2 * task.batch_size * (3 * sum(sizes) - sizes[0])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def gemm_peak(device: Device) -> float:
    """Return the GFLOP/s of sgemm on large matrices, with NumPy on this process's threads or with CuPy without TF32."""
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


def main(arguments: list[str] | None = None) -> None:
    """Print a line of JSON with the peak and the missing contenders, then a line for each task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", action="append", required=True, help="widths:batch,batch")
    parser.add_argument("--device", choices=list(CONTENDERS), required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="names of contenders, separated by commas")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    every, absent = CONTENDERS[options.device], missing(options.device)
    wanted = options.only.split(",") if options.only else list(every)
    names = [name for name in every if name == "gradwire" or (name in wanted and name not in absent)]
    print(json.dumps({"gemm_peak": gemm_peak(options.device), "missing": absent}), flush=True)
    for task in options.task:
        widths, batches = task.split(":")
        for batch in batches.split(","):
            shape = tuple(map(int, widths.split("-")))
            results, failed = run(options.device, shape, int(batch), names, options.rounds)
            print(json.dumps({"results": list(map(asdict, results)), "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
