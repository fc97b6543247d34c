"""Plans, and which one a job gets on the machine at hand."""

from dataclasses import dataclass

import numpy as np

from gradwire_engine.backend import Array, gpu_module
from gradwire_engine.plans.base import Plan, Problem
from gradwire_engine.plans.reference import ReferencePlan

__all__ = ["ChosenPlan", "NoGpuError", "Plan", "Problem", "ReferencePlan", "choose_plan"]


class NoGpuError(RuntimeError):
    """A GPU was asked for and this process has none to use."""


@dataclass(frozen=True)
class ChosenPlan:
    """A plan, where it runs ("cpu" or "gpu", and the GPU's name), and why it was taken."""

    plan: Plan
    device: str
    device_name: str
    reason: str


def choose_plan(problem: Problem, weights: Array, device: str) -> ChosenPlan:
    """Return the fastest plan for the device: "cpu", "gpu", or "auto" for a GPU where this process has one."""
    if device == "cpu":
        return ChosenPlan(ReferencePlan(problem, weights, np), "cpu", "", "the job asked for the CPU")
    cupy, found = gpu_module()
    if cupy is not None:
        return ChosenPlan(ReferencePlan(problem, weights, cupy), "gpu", found, f"this process has {found}")
    if device == "gpu":
        raise NoGpuError(f'device="gpu" but there is no GPU here: {found}')
    return ChosenPlan(ReferencePlan(problem, weights, np), "cpu", "", found)
