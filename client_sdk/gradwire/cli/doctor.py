"""gradwire doctor: what this machine is, which plan its jobs run on and why, and what that gains."""

import os
import time
from dataclasses import asdict, dataclass

import numpy as np
import typer

from gradwire.cli.openblas import CORE_TYPES, CoreType, measure
from gradwire.cli.output import AsJson, print_json, print_table
from gradwire_engine import CrossEntropy
from gradwire_engine.backend import gpu_module, processor_model, thread_count
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import Plan, Problem, ReferencePlan, choose_plan
from gradwire_engine.plans.cuda.availability import cuda_obstacle

# The chapter's model for MNIST, and enough steps for a steady figure.
_WIDTHS = (784, 128, 32, 10)
_BATCH, _STEPS, _ROUNDS = 64, 50, 5


@dataclass(frozen=True)
class Diagnosis:
    """What is found out. gain: how many times faster the plan is than the reference plan, here and now."""

    processor: str
    threads: int
    plan: str
    reason: str
    warning: str
    gain: float
    gpu: str
    openblas: list[CoreType]


def doctor(as_json: AsJson = False) -> None:
    """Show which plan jobs run on in this machine's processes, why, and what it gains."""
    found = diagnose()
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        ["processor", f"{found.processor}, {found.threads} threads"],
        ["plan", f"{found.plan} ({found.reason})"],
        ["gain", f"{found.gain:.1f} times the reference plan, at 784-128-32-10 in batches of {_BATCH}"],
        ["GPU", found.gpu],
    ]
    rows += [["warning", found.warning]] if found.warning else []
    print_table(["", ""], rows)
    typer.echo(
        "\nNumPy's OpenBLAS on one thread, by core type. Only the reference plan and your own NumPy code use it."
    )
    best = max(found.openblas, key=lambda core_type: core_type.gflops)
    print_table(["core type", "GFLOP/s", ""], [_core_type_row(core_type, best) for core_type in found.openblas])
    own = found.openblas[0]
    if best.gflops > 1.1 * own.gflops:
        gain = best.gflops / own.gflops
        typer.echo(f"export OPENBLAS_CORETYPE={best.name} would make NumPy's products {gain:.1f} times as fast here.")


def diagnose() -> Diagnosis:
    """Find everything out; takes some seconds."""
    network = Network.from_stack([_WIDTHS[:2], None, _WIDTHS[1:3], None, _WIDTHS[2:]])
    problem = Problem(network, CrossEntropy(), np.dtype(np.float32))
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal(network.size) * 0.05).astype(np.float32)
    rows = _BATCH * _STEPS
    examples = Examples.of(rng.random((rows, _WIDTHS[0]), np.float32), rng.integers(0, 10, rows), classification=True)
    chosen = choose_plan(problem, weights, "cpu")
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
    obstacle = cuda_obstacle(cupy)
    return f"{found}; the CUDA plan " + (f"cannot run here: {obstacle}" if obstacle else "runs and computes right")


def _gain(plan: Plan, reference: Plan, examples: Examples) -> float:
    """The ratio of the times of an epoch, in turn, as the median of some rounds."""
    order = np.arange(examples.rows)
    placed = [(each, each.place(examples)) for each in (reference, plan)]
    ratios = []
    for _ in range(_ROUNDS):
        times = []
        for each, where in placed:
            started = time.perf_counter()
            each.train(where, order, _BATCH, 0.01, 0.0)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def _core_type_row(core_type: CoreType, best: CoreType) -> list[str]:
    name = core_type.name or "(its own choice)"
    return [name, f"{core_type.gflops:.0f}", core_type.trouble or ("best" if core_type is best else "")]
