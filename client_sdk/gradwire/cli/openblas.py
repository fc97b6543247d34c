"""Measures the kernels of NumPy's OpenBLAS on this processor. NumPy uses these kernels, but the compiled plan does not.

When OpenBLAS is loaded, it selects kernels for the processor. OPENBLAS_CORETYPE overrides this choice. Each core type
is measured in a child process, because it can crash.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

# The x86 core types that have separate kernels, ordered by instruction set, newest last.
CORE_TYPES = ("Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids")
_SECONDS = 60

# Multiplies two matrices of small integers, because their product is exact in float32, and prints GFLOP/s. The check
# multiplies with a random vector, in a type that OpenBLAS does not use, because a full matrix product in that type
# takes seconds.
_PROGRAM = """
import time
import numpy as np
rng = np.random.default_rng(0)
a, b = (rng.integers(-8, 9, (768, 768)).astype(np.float32) for _ in range(2))
left, right, product = (matrix.astype(np.longdouble) for matrix in (a, b, a @ b))
vector = rng.integers(-(2**20), 2**20, 768).astype(np.longdouble)
if not np.array_equal(product @ vector, left @ (right @ vector)):
    raise SystemExit("wrong numbers")
best = float("inf")
for _ in range(20):
    started = time.perf_counter()
    a @ b
    best = min(best, time.perf_counter() - started)
print(2 * 768**3 / best / 1e9)
"""


@dataclass(frozen=True)
class CoreType:
    """The GFLOP/s of sgemm on one thread with a core type.

    `name` is "" for the core type that OpenBLAS selects. `trouble` is the reason why the core type cannot be used.
    """

    name: str
    gflops: float
    trouble: str = ""


def measure(name: str = "") -> CoreType:
    """Measure a core type in a child process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads}
    environment.pop("OPENBLAS_CORETYPE", None)
    if name:
        environment["OPENBLAS_CORETYPE"] = name
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return CoreType(name, 0.0, f"no result within {_SECONDS} s")
    if done.returncode < 0:
        return CoreType(name, 0.0, f"crashes with signal {-done.returncode}")
    if done.returncode:
        return CoreType(name, 0.0, (done.stderr.strip() or "fails").splitlines()[-1])
    return CoreType(name, float(done.stdout))
