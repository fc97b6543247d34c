"""Plans, and which one a job gets on the machine at hand."""

import os
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from gradwire_engine.backend import Array, gpu_module, thread_count
from gradwire_engine.losses import MSE
from gradwire_engine.network import Network
from gradwire_engine.plans.base import Plan, Problem
from gradwire_engine.plans.compiled.availability import vector_registers, why_not
from gradwire_engine.plans.cuda.availability import cuda_obstacle
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.plan import CudaPlan
from gradwire_engine.plans.reference import ReferencePlan

__all__ = ["PLANS", "ChosenPlan", "NoGpuError", "Plan", "Problem", "ReferencePlan", "choose_plan", "warm_up"]

# What GRADWIRE_PLAN may name.
PLANS = ("reference", "compiled")


class NoGpuError(RuntimeError):
    """A GPU was asked for and this process has none to use."""


@dataclass(frozen=True)
class ChosenPlan:
    """A plan, where it runs ("cpu" or "gpu", and the GPU's name), and why it was taken.

    warning: what keeps this machine from a faster plan that one like it would have, or "".
    """

    plan: Plan
    device: str
    device_name: str
    reason: str
    warning: str = ""


def choose_plan(problem: Problem, weights: Array, device: str) -> ChosenPlan:
    """Return the fastest plan for the device: "cpu", "gpu", or "auto" for a GPU where this process has one.

    GRADWIRE_PLAN forces "reference", or on the CPU "compiled"; ValueError for another name, or if it cannot run.
    GRADWIRE_TF32=1 lets a GPU round the factors of float32 products.
    """
    if device == "cpu":
        return _cpu_plan(problem, weights, "the job asked for the CPU")
    cupy, found = gpu_module()
    if cupy is None:
        if device == "gpu":
            raise NoGpuError(f'device="gpu" but there is no GPU here: {found}')
        return _cpu_plan(problem, weights, found)
    try:
        return _gpu_plan(problem, weights, cupy, found)
    except Exception as error:  # Whatever CuPy and the driver raise: the GPU is full, for instance.
        trouble = f"{found} cannot be used: {type(error).__name__}: {error}"
        if device == "gpu":
            raise NoGpuError(trouble) from error
        return replace(_cpu_plan(problem, weights, trouble), warning=f"the job runs on the CPU: {trouble}")


def warm_up() -> None:
    """Load the code of the plans that jobs will get in this process, and compile it where that was never done."""
    cupy, _ = gpu_module()
    if cupy is not None:
        cuda_obstacle(cupy)
    problem = Problem(Network.from_stack([(1, 1)]), MSE(), np.dtype(np.float32))
    _cpu_plan(problem, np.zeros(problem.network.size, np.float32), "")


def _gpu_plan(problem: Problem, weights: Array, cupy: ModuleType, name: str) -> ChosenPlan:
    forced = os.environ.get("GRADWIRE_PLAN") == "reference"
    obstacle = "" if forced else cuda_obstacle(cupy)
    if forced or obstacle:
        warning = f"the CUDA plan cannot run here, the slower reference plan does: {obstacle}" if obstacle else ""
        return ChosenPlan(ReferencePlan(problem, weights, cupy), "gpu", name, f"this process has {name}", warning)
    tf32 = os.environ.get("GRADWIRE_TF32", "") == "1"
    plan = CudaPlan(problem, weights, Device(cupy, problem.dtype, tf32=tf32))
    how = f"this process has {name}" + ("; GRADWIRE_TF32 is 1" if tf32 else "")
    return ChosenPlan(plan, "gpu", name, how)


def _cpu_plan(problem: Problem, weights: Array, why_cpu: str) -> ChosenPlan:
    forced = os.environ.get("GRADWIRE_PLAN", "")
    if forced and forced not in PLANS:
        raise ValueError(f"GRADWIRE_PLAN must be one of {', '.join(PLANS)}, got {forced!r}")
    obstacle = "" if forced == "reference" else why_not()
    if obstacle and forced == "compiled":
        raise ValueError(f"GRADWIRE_PLAN is compiled, but that plan cannot run here: {obstacle}")
    how = f"{why_cpu}; GRADWIRE_PLAN is {forced}" if forced else why_cpu
    if forced == "reference" or obstacle:
        warning = f"the compiled plan cannot run here, the slower reference plan does: {obstacle}" if obstacle else ""
        return ChosenPlan(ReferencePlan(problem, weights, np), "cpu", "", how, warning)
    from gradwire_engine.plans.compiled.plan import CompiledPlan  # noqa: PLC0415  (needs Numba)

    return ChosenPlan(CompiledPlan(problem, weights, thread_count(), vector_registers()), "cpu", "", how)
