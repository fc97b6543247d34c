"""python -m gradwire_engine.plans.compiled.check: compile all code of the plan, and hold it against the reference plan.

Exits with an error where they differ. What it compiles is kept on disk.
"""

from gradwire_engine.plans import agreement
from gradwire_engine.plans.compiled.plan import CompiledPlan
from gradwire_engine.plans.compiled.readiness import vector_registers

if __name__ == "__main__":
    agreement.check(lambda problem, weights: CompiledPlan(problem, weights, 1, vector_registers()))
