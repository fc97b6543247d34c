"""The compiled plan for the CPU. Importing it needs Numba (extra `fast`); `plans.choose_plan` is who does."""

from gradwire_engine.plans.compiled.plan import CompiledPlan

__all__ = ["CompiledPlan"]
