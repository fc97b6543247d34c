"""As much of CuPy as the CUDA plan uses, on this machine's own processor: kernels.cu is compiled by its C++ compiler.

It stands for a GPU in what is computed, in which order, and in what a graph replays; not in how CuPy and CUDA behave.
"""

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_CUDA = """
#include <cmath>
using std::exp; using std::log;
struct Place { unsigned x; };
static Place blockIdx, blockDim, threadIdx;
#define __global__ static
#define __device__ static
static unsigned long long atomicAdd(unsigned long long* at, unsigned long long more) {
    unsigned long long before = *at; *at += more; return before;
}
"""
_KERNEL = re.compile(r"__global__ void (\w+)\((.*?)\)\s*{", re.DOTALL)
_C_TYPES = {
    np.int32: ctypes.c_int,
    np.int64: ctypes.c_longlong,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}


class Array(np.ndarray):
    """An array "on the device"."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self) -> np.ndarray:
        return np.array(self)

    def set(self, values: np.ndarray) -> None:
        assert (values.dtype, values.shape) == (self.dtype, self.shape)
        self[...] = values


class FakeCupy:
    """The module. `memory` is what the "GPU" has; `folder` is where compiled kernels are kept."""

    def __init__(self, folder: Path, memory: int = 1 << 30) -> None:
        self._folder = folder
        self.memory, self.used = memory, 0
        self.recording: list[Any] | None = None
        self.replays = 0
        self.math_modes: list[int] = []
        runtime = SimpleNamespace(memGetInfo=lambda: (self.memory - self.used, self.memory))
        cublas = SimpleNamespace(
            setMathMode=lambda _handle, mode: self.math_modes.append(mode),
            sgemm=self._gemm(np.float32),
            dgemm=self._gemm(np.float64),
        )
        device = SimpleNamespace(get_cublas_handle=lambda: 1)
        self.cuda = SimpleNamespace(runtime=runtime, cublas=cublas, device=device, Stream=lambda **_: _Stream(self))

    def zeros(self, shape: Any, dtype: Any) -> Array:
        assert self.recording is None, "memory that is allocated in a graph"
        array = np.zeros(shape, dtype).view(Array)
        self.used += array.nbytes
        return array

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 0)

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802, ARG002  (CuPy's)
        return _Module(self, code, self._folder)

    def do(self, work: Any) -> None:
        """Do it, or record it."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def _gemm(self, kind: Any) -> Any:
        c_type = np.ctypeslib.as_ctypes_type(kind)

        def matrix(pointer: int, rows: int, columns: int, leading: int) -> np.ndarray:
            flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(c_type)), (leading * columns,))
            return flat.reshape(columns, leading).T[:rows]

        def gemm(handle, turn_a, turn_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
            alpha, beta = (ctypes.cast(factor, ctypes.POINTER(c_type))[0] for factor in (alpha, beta))

            def work() -> None:
                first = matrix(a, *((k, m) if turn_a else (m, k)), lda)
                second = matrix(b, *((n, k) if turn_b else (k, n)), ldb)
                out = matrix(c, m, n, ldc)
                product = (first.T if turn_a else first) @ (second.T if turn_b else second)
                out[...] = kind(alpha) * product + (kind(beta) * out if beta else 0)

            self.do(work)

        return gemm


class _Stream:
    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def begin_capture(self) -> None:
        self._cupy.recording = []

    def end_capture(self) -> Any:
        recorded, self._cupy.recording = self._cupy.recording, None

        def launch(_stream: "_Stream") -> None:
            self._cupy.replays += 1
            for work in recorded:
                work()

        return SimpleNamespace(launch=launch)


class _Module:
    def __init__(self, cupy: FakeCupy, code: str, folder: Path) -> None:
        self._cupy = cupy
        text = _CUDA + code + "".join(_runner(*found) for found in _KERNEL.findall(code))
        source = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.cpp"
        library = source.with_suffix(".so")
        if not library.exists():
            source.write_text(text)
            command = ["g++", "-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", source, "-o", library]
            subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Any:
        run = self._library[f"run_{name}"]

        def kernel(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
            given = [
                ctypes.c_void_p(argument.ctypes.data)
                if isinstance(argument, np.ndarray)
                else _C_TYPES[type(argument)](argument)
                for argument in arguments
            ]
            self._cupy.do(lambda: run(grid[0], block[0], *given))

        return kernel


def _runner(name: str, parameters: str) -> str:
    """A function that runs a kernel's threads one after the other."""
    names = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
    return f"""
    extern "C" void run_{name}(int blocks, int threads, {parameters}) {{
        blockDim.x = threads;
        for (blockIdx.x = 0; blockIdx.x < (unsigned)blocks; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < (unsigned)threads; ++threadIdx.x) {name}({names});
    }}"""
