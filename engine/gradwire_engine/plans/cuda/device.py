"""A GPU, as the CUDA plan uses it, through CuPy: memory, kernels, matrix products, and graphs of them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.plans.cuda import kernels

_OPTIONS = ("--std=c++14",)


class Device:
    """The GPU that CuPy sees first. Arrays on it are CuPy's; all work is done in order, on one stream."""

    def __init__(self, cupy: Any, dtype: "np.dtype[Any]", *, tf32: bool) -> None:
        """Compile the kernels for arithmetic in `dtype`.

        tf32: let float32 products round their factors to 10 bits, on tensor cores; else they are exact float32.
        """
        self._cupy = cupy
        module = cupy.RawModule(code=kernels.step_source(dtype.name), options=_OPTIONS)
        self._kernels = {name: module.get_function(name) for name in kernels.NAMES}
        self._dtype = dtype
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._cublas = cupy.cuda.cublas
        self._handle = cupy.cuda.device.get_cublas_handle()
        # 0 is the default, which does not use TF32; 3 is CUBLAS_TF32_TENSOR_OP_MATH.
        self._cublas.setMathMode(self._handle, 3 if tf32 else 0)
        self._multiply = self._cublas.sgemm if dtype == np.float32 else self._cublas.dgemm
        attributes = cupy.cuda.Device().attributes
        self._multiprocessors: int = attributes["MultiProcessorCount"]
        self._most_shared_bytes: int = attributes["MaxSharedMemoryPerBlockOptin"] * attributes["CooperativeLaunch"]

    def free_bytes(self) -> int:
        """Return how much memory can still be had; what CuPy's pool holds and does not use counts too."""
        free, _total = self._cupy.cuda.runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def zeros(self, shape: int | tuple[int, ...], dtype: "np.dtype[Any]") -> Any:
        """Return a new array."""
        with self._stream:
            return self._cupy.zeros(shape, dtype)

    def copy_in(self, target: Any, array: Array) -> None:
        """Copy a host array into the beginning of a device array of the same type."""
        with self._stream:
            target.ravel()[: array.size].set(np.ascontiguousarray(array).ravel())

    def copy_out(self, array: Any) -> NDArray[Any]:
        """Return a device array on the host, after all work before it."""
        with self._stream:
            host: NDArray[Any] = array.get()
        return host

    def launch(self, kernel: str, threads: int, *arguments: Any) -> None:
        """Run a kernel of kernels.cu with at least so many threads."""
        blocks = -(-threads // kernels.BLOCK)
        size = min(threads, kernels.BLOCK)
        with self._stream:
            self._kernels[kernel]((blocks,), (size,), arguments)

    def run_together(self, blocks: int, shared_bytes: int) -> bool:
        """Whether so many blocks of narrow_steps, each with so much shared memory, can run at once.

        CuPy would start fewer, with a warning, where they cannot.
        """
        if shared_bytes > self._most_shared_bytes:
            return False
        self._narrow_steps.max_dynamic_shared_size_bytes = shared_bytes
        each = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            self._narrow_steps.kernel.ptr, kernels.THREADS, shared_bytes
        )
        return blocks <= int(each) * self._multiprocessors

    def launch_together(self, blocks: int, shared_bytes: int, *arguments: Any) -> None:
        """Run narrow_steps on so many blocks at once, which `run_together` has allowed."""
        self._narrow_steps.max_dynamic_shared_size_bytes = shared_bytes
        with self._stream:
            self._narrow_steps((blocks,), (kernels.THREADS,), arguments, shared_mem=shared_bytes)

    def multiply(self, a: Any, b: Any, out: Any, *, a_turned: bool, b_turned: bool, alpha: float, beta: float) -> None:
        """Set out = alpha * a @ b + beta * out, all row-major; a or b transposed where they are `turned`.

        To cuBLAS, whose matrices are column-major, each of ours is its own transpose.
        """
        rows, columns = out.shape
        inner = a.shape[0] if a_turned else a.shape[1]
        factors = np.array([alpha, beta], self._dtype)
        with self._stream:
            self._multiply(
                self._handle,
                int(b_turned),
                int(a_turned),
                columns,
                rows,
                inner,
                factors.ctypes.data,
                b.data.ptr,
                b.shape[1],
                a.data.ptr,
                a.shape[1],
                factors.ctypes.data + factors.itemsize,
                out.data.ptr,
                columns,
            )

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` asks for, without doing it, and return what does it all, as often as it is called."""
        with self._stream:
            self._stream.begin_capture()
            try:
                work()
            finally:
                graph = self._stream.end_capture()
        return lambda: graph.launch(self._stream)

    @cached_property
    def _narrow_steps(self) -> Any:
        # Compiled when it is first needed.
        text = kernels.narrow_source(self._dtype.name)
        module = self._cupy.RawModule(code=text, options=_OPTIONS, enable_cooperative_groups=True)
        return module.get_function("narrow_steps")
