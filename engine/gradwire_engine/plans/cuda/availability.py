"""Whether the CUDA plan can be used on this machine's GPU; found out once in a process, by a few steps on it."""

from functools import cache
from types import ModuleType

from gradwire_engine.plans import agreement
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.plan import CudaPlan


@cache
def cuda_obstacle(cupy: ModuleType) -> str:
    """Return why the CUDA plan cannot be used, or "" if it compiles, runs, and agrees with the reference plan."""
    try:
        agreement.check(lambda problem, weights: CudaPlan(problem, weights, Device(cupy, problem.dtype, tf32=False)))
    except Exception as error:  # Whatever CuPy, its compiler and the driver raise, for an old GPU for instance.
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[-1]}"
    return ""
