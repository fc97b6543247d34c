"""`gradwire doctor`, which shows the plan for this machine and compares it with the reference plan."""

import os
import time
from dataclasses import asdict, dataclass

import numpy as np
import typer

from gradwire._exceptions import InvalidArgumentError
from gradwire.cli.openblas import CORE_TYPES, CoreType, measure
from gradwire.cli.output import AsJson, print_json, print_table
from gradwire_engine import CrossEntropy
from gradwire_engine.backend import gpu_module, processor_model, thread_count
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import ForcedPlanError, Plan, Problem, ReferencePlan, choose_plan
from gradwire_engine.plans.cuda import availability as cuda_availability

# The network for MNIST, and enough steps for a stable result.
_WIDTHS = (784, 128, 32, 10)
_BATCH, _STEPS, _ROUNDS = 64, 50, 5


@dataclass(frozen=True)
class Diagnosis:
    """The results that `doctor` prints.

    `gain` is the measured speed of the CPU plan, divided by the speed of the reference plan.
    """

    processor: str
    threads: int
    plan: str
    reason: str
    warning: str | None
    gain: float
    gpu: str
    openblas: list[CoreType]


def doctor(as_json: AsJson = False) -> None:
    """Show which plan jobs use on this machine, why, and how much faster it is than the reference plan."""
    found = diagnose()
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        ["processor", f"{found.processor}, {found.threads} threads"],
        ["plan", f"{found.plan} ({found.reason})"],
        ["gain", f"{found.gain:.1f} times as fast as the reference plan, for 784-128-32-10 in batches of {_BATCH}"],
        ["GPU", found.gpu],
    ]
    rows += [["warning", found.warning]] if found.warning else []
    print_table(["", ""], rows)
    typer.echo(
        "\nNumPy's OpenBLAS on one thread, by core type. Only the reference plan and your own NumPy code use it."
    )
    best = max(found.openblas, key=lambda core_type: core_type.gflops)
    print_table(["core type", "GFLOP/s", ""], [_core_type_row(core_type, best) for core_type in found.openblas])
    default = found.openblas[0]
    if best.gflops > 1.1 * default.gflops:
        gain = best.gflops / default.gflops
        typer.echo(f"With OPENBLAS_CORETYPE={best.name}, NumPy's matrix products would be {gain:.1f} times as fast.")


def diagnose() -> Diagnosis:
    """Run all measurements. This takes several seconds."""
    network = Network.from_stack([_WIDTHS[:2], None, _WIDTHS[1:3], None, _WIDTHS[2:]])
    problem = Problem(network, CrossEntropy(), np.dtype(np.float32))
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal(network.size) * 0.05).astype(np.float32)
    rows = _BATCH * _STEPS
    examples = Examples.of(rng.random((rows, _WIDTHS[0]), np.float32), rng.integers(0, 10, rows), classification=True)
    try:
        chosen = choose_plan(problem, weights, "cpu")
    except ForcedPlanError as error:
        raise InvalidArgumentError(str(error)) from None
    return Diagnosis(
        processor=processor_model(),
        threads=thread_count(),
        plan=chosen.plan.name,
        reason="GRADWIRE_PLAN" if os.environ.get("GRADWIRE_PLAN") else "the fastest that runs here",
        warning=chosen.warning,
        gain=_gain(chosen.plan, ReferencePlan(problem, weights), examples),
        gpu=_gpu(),
        openblas=[measure(), *(measure(name) for name in CORE_TYPES)],
    )


def _gpu() -> str:
    cupy, found = gpu_module()
    if cupy is None:
        return found
    reason = cuda_availability.unavailable_reason()
    verdict = "runs and agrees with the reference plan" if reason is None else f"cannot run here: {reason}"
    return f"{found}; the CUDA plan {verdict}"


def _gain(plan: Plan, reference: Plan, examples: Examples) -> float:
    """Return the epoch time of the reference plan divided by that of `plan`, as the median of several rounds."""
    order = np.arange(examples.rows)
    placed = [(each, each.place(examples)) for each in (reference, plan)]
    ratios = []
    for _ in range(_ROUNDS):
        times = []
        for each, examples_of_plan in placed:
            started = time.perf_counter()
            each.train(examples_of_plan, order, _BATCH, 0.01, 0.0)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def _core_type_row(core_type: CoreType, best: CoreType) -> list[str]:
    name = core_type.name or "(the default)"
    return [name, f"{core_type.gflops:.0f}", core_type.trouble or ("best" if core_type is best else "")]
