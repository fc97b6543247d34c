"""Checks whether the CUDA plan can run on this machine's GPU, by running a few steps once in each process."""

from functools import cache
from types import ModuleType

from gradwire_engine.backend import gpu_module
from gradwire_engine.plans import agreement
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.plan import CudaPlan


def unavailable_reason() -> str | None:
    """Return why the CUDA plan cannot run here, or None if it compiles, runs and agrees with the reference plan."""
    cupy, found = gpu_module()
    return found if cupy is None else _check(cupy)


@cache
def _check(cupy: ModuleType) -> str | None:
    try:
        agreement.check(lambda problem, weights: CudaPlan(problem, weights, Device(cupy, problem.dtype, tf32=False)))
    except Exception as error:  # CuPy, the compiler and the driver raise many exception types.
        return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[-1]}"
    return None
