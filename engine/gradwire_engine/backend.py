"""Selects the array library: NumPy on the CPU, CuPy on a GPU. No other module imports CuPy."""

import os
import platform
from numbers import Number
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A NumPy array, or a CuPy array, which has the same interface.
Array = NDArray[Any]


def array_module(array: Array) -> Any:
    """Return numpy or cupy, depending on the type of `array`. By convention, callers name the result `xp`."""
    if isinstance(array, np.ndarray):
        return np
    import cupy  # noqa: PLC0415  (only installed with the `cuda` extra)

    return cupy.get_array_module(array)


def as_array(x: Any) -> Array:
    """Convert lists, numbers and pandas objects to NumPy arrays, and return arrays unchanged.

    Raises:
        TypeError: The value is something else, for example text.
    """
    if isinstance(x, list | tuple | Number) or hasattr(x, "to_numpy"):
        return np.asarray(x)
    if not hasattr(x, "ndim"):
        raise TypeError(f"a layer takes an array, got {x!r}")
    array: Array = x
    return array


def to_numpy(array: Array) -> NDArray[Any]:
    """Return `array` in host memory. A NumPy array is returned unchanged."""
    if isinstance(array, np.ndarray):
        return array
    host: NDArray[Any] = array_module(array).asnumpy(array)
    return host


def gpu_module() -> tuple[ModuleType | None, str]:
    """Return cupy and the name of the first GPU, or None and the reason why no GPU can be used."""
    try:
        import cupy  # noqa: PLC0415
    except ImportError as error:
        if error.name == "cupy":
            return None, "CuPy is not installed (extra `cuda`)"
        return None, f"CuPy cannot be imported: {error}"
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return None, "CuPy sees no GPU"
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return None, f"CuPy cannot use the GPU: {error}"
    return cupy, name


def thread_count() -> int:
    """Return the number of threads for a CPU plan: OMP_NUM_THREADS if set, otherwise the number of available cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0))


def processor_model() -> str:
    """Return the model name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
