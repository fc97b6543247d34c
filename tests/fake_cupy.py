"""A stand-in for CuPy on machines without a GPU. It provides what the CUDA plan uses, and compiles kernels with g++.

It computes the same values as a GPU, in an order that is possible on a GPU, and it can replay graphs. It does not
imitate any other behavior of CuPy and CUDA.
"""

import ctypes
import hashlib
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

_KERNEL = re.compile(
    r"__global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\((.*?)\)\s*{(.*?)(?=__global__|\Z)", re.DOTALL
)
_CUDA = Path(__file__).with_name("fake_cuda.h")
_SHARED = "extern __shared__ double shared_memory[];"
_C_TYPES = {
    np.int32: ctypes.c_int,
    np.int64: ctypes.c_longlong,
    np.float32: ctypes.c_float,
    np.float64: ctypes.c_double,
}


class Array(np.ndarray):
    """An array in the memory of the simulated GPU."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self) -> np.ndarray:
        return np.array(self)

    def set(self, values: np.ndarray) -> None:
        assert (values.dtype, values.shape) == (self.dtype, self.shape)
        self[...] = values


class FakeCupy:
    """A replacement for the cupy module.

    Args:
        folder: The folder for compiled kernels.
        memory: The memory of the simulated GPU, in bytes.
        seed: The seed for the random order of threads that wait for each other, or 0 for a fixed order.
    """

    def __init__(self, folder: Path, memory: int = 1 << 30, *, seed: int = 0) -> None:
        self.__version__ = "stand-in"
        self._folder = folder
        self.seed = seed
        self.memory, self.used = memory, 0
        # These are the values of an H100.
        self.attributes = {
            "MultiProcessorCount": 132,
            "CooperativeLaunch": 1,
            "MaxSharedMemoryPerBlockOptin": 232448,
        }
        # The number of blocks of the persistent kernel that can run on a multiprocessor at the same time.
        self.blocks_per_multiprocessor = 1
        self.cooperative_launches: list[str] = []
        self.recording: list[Any] | None = None
        self.replays = 0
        self.math_modes: list[int] = []
        runtime = SimpleNamespace(
            memGetInfo=lambda: (self.memory - self.used, self.memory),
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda _number: {"name": b"Stand-in for a GPU"},
            driverGetVersion=lambda: 13000,
            CUDARuntimeError=RuntimeError,
        )
        cublas = SimpleNamespace(
            setMathMode=lambda _handle, mode: self.math_modes.append(mode),
            sgemm=self._gemm(np.float32),
            dgemm=self._gemm(np.float64),
        )
        device = SimpleNamespace(get_cublas_handle=lambda: 1)
        self.cuda = SimpleNamespace(
            runtime=runtime,
            cublas=cublas,
            device=device,
            driver=SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: self.blocks_per_multiprocessor),
            Device=lambda: SimpleNamespace(attributes=self.attributes, synchronize=lambda: None),
            Stream=lambda **_: _Stream(self),
        )

    def zeros(self, shape: Any, dtype: Any) -> Array:
        assert self.recording is None, "memory was allocated in a graph"
        array = np.zeros(shape, dtype).view(Array)
        self.used += array.nbytes
        if self.used > self.memory:
            raise MemoryError(f"the GPU is full: {self.used} bytes")
        return array

    def array(self, values: Any, dtype: Any = None) -> Array:
        return np.array(values, dtype).view(Array)

    def asarray(self, values: Any) -> Array:
        return np.asarray(values).view(Array)

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_bytes=lambda: 0)

    def RawModule(  # noqa: N802  (the name in CuPy)
        self, code: str, options: tuple[str, ...], enable_cooperative_groups: bool = False
    ) -> Any:
        assert options == ("--std=c++14",)
        return _Module(self, code, self._folder, enable_cooperative_groups)

    def do(self, work: Any) -> None:
        """Run the work now, or record it if a graph is being captured."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def _gemm(self, kind: Any) -> Any:
        c_type = np.ctypeslib.as_ctypes_type(kind)

        def matrix(pointer: int, rows: int, columns: int, leading: int) -> np.ndarray:
            flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(c_type)), (leading * columns,))
            return flat.reshape(columns, leading).T[:rows]

        def gemm(handle, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
            alpha, beta = (ctypes.cast(factor, ctypes.POINTER(c_type))[0] for factor in (alpha, beta))

            def work() -> None:
                first = matrix(a, *((k, m) if transpose_a else (m, k)), lda)
                second = matrix(b, *((n, k) if transpose_b else (k, n)), ldb)
                out = matrix(c, m, n, ldc)
                product = (first.T if transpose_a else first) @ (second.T if transpose_b else second)
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
    def __init__(self, cupy: FakeCupy, code: str, folder: Path, cooperative: bool) -> None:
        self._cupy, self._code, self._folder, self._cooperative = cupy, code, folder, cooperative

    def get_function(self, name: str) -> Any:
        return _Kernel(self._cupy, name, self._library()[f"run_{name}"], self._cooperative)

    def _library(self) -> ctypes.CDLL:
        code = self._code.replace(_SHARED, "double* shared_memory = fake_cuda::block().shared.data();")
        text = _CUDA.read_text() + code + "".join(_runner(*found) for found in _KERNEL.findall(code))
        source = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.cpp"
        library = source.with_suffix(".so")
        if not library.exists():
            source.write_text(text)
            # Some distributions enable checks that forbid a jump to another stack. -U_FORTIFY_SOURCE disables them.
            flags = ["-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-w", "-U_FORTIFY_SOURCE"]
            subprocess.run(["g++", *flags, source, "-o", library], check=True)
        return ctypes.CDLL(str(library))


class _Kernel:
    def __init__(self, cupy: FakeCupy, name: str, run: Any, cooperative: bool) -> None:
        self._cupy, self._name, self._run, self._cooperative = cupy, name, run, cooperative
        run.restype = ctypes.c_bool
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.kernel = SimpleNamespace(ptr=1)

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
        gpu = self._cupy.attributes
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= gpu["MaxSharedMemoryPerBlockOptin"]
        if self._cooperative:
            assert grid[0] <= gpu["MultiProcessorCount"] * self._cupy.blocks_per_multiprocessor
            self._cupy.cooperative_launches.append(self._name)
        given = [
            ctypes.c_void_p(argument.ctypes.data)
            if isinstance(argument, np.ndarray)
            else _C_TYPES[type(argument)](argument)
            for argument in arguments
        ]

        def work() -> None:
            within_bounds = self._run(grid[0], block[0], ctypes.c_size_t(shared_mem), self._cupy.seed, *given)
            assert within_bounds, f"{self._name} wrote beyond its shared memory"

        self._cupy.do(work)


def _runner(name: str, parameters: str, body: str) -> str:
    """Return the C++ source of a function that runs a kernel."""
    how = "run_interleaved" if "__syncthreads" in body else "run_in_sequence"
    return f"""
    extern "C" bool run_{name}(int blocks, int threads, size_t shared_bytes, unsigned seed, {parameters}) {{
        auto kernel = [&] {{ {name}({_names(parameters)}); }};
        return fake_cuda::{how}(blocks, threads, shared_bytes, seed, kernel);
    }}"""


def _names(parameters: str) -> str:
    return ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
