"""Compiles the code of the compiled plan, and compares its results with those of the reference plan.

`availability` runs this module in a child process, which fails if the plans disagree. The compiled code is cached on
disk.
"""

from gradwire_engine.plans import agreement
from gradwire_engine.plans.compiled.availability import vector_registers
from gradwire_engine.plans.compiled.plan import CompiledPlan

if __name__ == "__main__":
    agreement.check(lambda problem, weights: CompiledPlan(problem, weights, 1, vector_registers()))
