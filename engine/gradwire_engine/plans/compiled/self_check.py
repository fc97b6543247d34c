"""Compile all code of the plan and compare it with the reference plan; run as a module by `availability`.

Exits with an error where they differ. What it compiles is kept on disk.
"""

from gradwire_engine.plans import agreement
from gradwire_engine.plans.compiled.availability import vector_registers
from gradwire_engine.plans.compiled.plan import CompiledPlan

if __name__ == "__main__":
    agreement.check(lambda problem, weights: CompiledPlan(problem, weights, 1, vector_registers()))
