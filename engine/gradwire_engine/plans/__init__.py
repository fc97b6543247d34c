"""Plans, and the function that chooses a plan for a job on this machine."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from gradwire_engine.backend import Array, gpu_module, thread_count
from gradwire_engine.losses import MSE
from gradwire_engine.network import Network
from gradwire_engine.plans.base import Plan, Problem
from gradwire_engine.plans.compiled import availability as compiled_availability
from gradwire_engine.plans.cuda import availability as cuda_availability
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.plan import CudaPlan
from gradwire_engine.plans.reference import ReferencePlan

__all__ = [
    "PLANS",
    "ChosenPlan",
    "ForcedPlanError",
    "NoGpuError",
    "Plan",
    "Problem",
    "ReferencePlan",
    "choose_plan",
    "warm_up",
]

# The allowed values of GRADWIRE_PLAN.
PLANS = ("reference", "compiled", "cuda")


class NoGpuError(RuntimeError):
    """The job requires a GPU, but this process has no working GPU."""


class ForcedPlanError(ValueError):
    """GRADWIRE_PLAN is not a valid plan name, or that plan cannot run here."""


@dataclass(frozen=True)
class ChosenPlan:
    """A plan and the reason for choosing it.

    Attributes:
        plan: The plan.
        device: "cpu" or "gpu".
        device_name: The name of the GPU, or None on the CPU.
        reason: The reason for choosing this device and plan.
        warning: A warning that a faster plan cannot run here, with the reason. None if there is no such problem.
    """

    plan: Plan
    device: str
    device_name: str | None
    reason: str
    warning: str | None = None


def choose_plan(problem: Problem, weights: Array, device: str) -> ChosenPlan:
    """Return the fastest plan for a device.

    GRADWIRE_PLAN forces a plan: "reference" on any device, "compiled" on the CPU, or "cuda" on a GPU. GRADWIRE_TF32=1
    lets a GPU round the factors of float32 products to 10 mantissa bits (TF32).

    Args:
        problem: The problem to train.
        weights: The flat vector of initial weights, of shape (network.size,).
        device: "cpu", "gpu" or "auto". "auto" selects a working GPU if this process has one, otherwise the CPU.

    Raises:
        NoGpuError: The device is "gpu", but this process has no working GPU.
        ForcedPlanError: GRADWIRE_PLAN is not a valid plan name, or that plan cannot run here.
    """
    if device == "cpu":
        return _cpu_plan(problem, weights, "the job asked for the CPU")
    cupy, found = gpu_module()
    if cupy is None:
        if device == "gpu":
            raise NoGpuError(
                f'device="gpu", but there is no GPU here: {found}. Use device="auto", or a machine with a GPU'
            )
        return _cpu_plan(problem, weights, found)
    try:
        return _gpu_plan(problem, weights, cupy, found)
    except ForcedPlanError:
        raise
    except Exception as error:  # CuPy and the driver raise many exception types, for example if GPU memory is full.
        trouble = f"{found} cannot be used: {type(error).__name__}: {error}"
        if device == "gpu":
            raise NoGpuError(trouble) from error
        return replace(_cpu_plan(problem, weights, trouble), warning=f"the job runs on the CPU: {trouble}")


def warm_up() -> None:
    """Load the plans that jobs use in this process, and compile them if they are not yet compiled on this machine."""
    cuda_availability.unavailable_reason()
    problem = Problem(Network.from_stack([(1, 1)]), MSE(), np.dtype(np.float32))
    with suppress(ForcedPlanError):  # Each job reports this error.
        _cpu_plan(problem, np.zeros(problem.network.size, np.float32), "this process has no GPU")


def _gpu_plan(problem: Problem, weights: Array, cupy: ModuleType, name: str) -> ChosenPlan:
    forced = _forced_plan()
    if forced == "compiled":
        raise ForcedPlanError(
            f'GRADWIRE_PLAN is compiled, which runs on the CPU, but this job runs on {name}. Use device="cpu"'
        )
    unavailable = None if forced == "reference" else cuda_availability.unavailable_reason()
    if unavailable and forced == "cuda":
        raise ForcedPlanError(f"GRADWIRE_PLAN is cuda, but that plan cannot run here: {unavailable}")
    how = f"this process has {name}" + (f"; GRADWIRE_PLAN is {forced}" if forced else "")
    if forced == "reference" or unavailable:
        plan = ReferencePlan(problem, weights, cupy)
        return ChosenPlan(plan, "gpu", name, how, _fallback_warning("CUDA", unavailable))
    tf32 = os.environ.get("GRADWIRE_TF32", "") == "1"
    how += "; GRADWIRE_TF32 is 1" if tf32 else ""
    return ChosenPlan(CudaPlan(problem, weights, Device(cupy, problem.dtype, tf32=tf32)), "gpu", name, how)


def _cpu_plan(problem: Problem, weights: Array, why_cpu: str) -> ChosenPlan:
    forced = _forced_plan()
    if forced == "cuda":
        raise ForcedPlanError(f"GRADWIRE_PLAN is cuda, which needs a GPU, but {why_cpu}")
    unavailable = None if forced == "reference" else compiled_availability.unavailable_reason()
    if unavailable and forced == "compiled":
        raise ForcedPlanError(f"GRADWIRE_PLAN is compiled, but that plan cannot run here: {unavailable}")
    how = f"{why_cpu}; GRADWIRE_PLAN is {forced}" if forced else why_cpu
    if forced == "reference" or unavailable:
        plan = ReferencePlan(problem, weights, np)
        return ChosenPlan(plan, "cpu", None, how, _fallback_warning("compiled", unavailable))
    from gradwire_engine.plans.compiled.plan import CompiledPlan  # noqa: PLC0415  (needs Numba)

    registers = compiled_availability.vector_registers()
    return ChosenPlan(CompiledPlan(problem, weights, thread_count(), registers), "cpu", None, how)


def _forced_plan() -> str:
    forced = os.environ.get("GRADWIRE_PLAN", "")
    if forced and forced not in PLANS:
        raise ForcedPlanError(f"GRADWIRE_PLAN must be one of {', '.join(PLANS)}, got {forced!r}")
    return forced


def _fallback_warning(plan: str, unavailable: str | None) -> str | None:
    if unavailable is None:
        return None
    return f"the {plan} plan cannot run here, so the job uses the slower reference plan: {unavailable}"
