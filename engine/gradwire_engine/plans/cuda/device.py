"""The GPU operations of the CUDA plan: memory, kernels, matrix products and CUDA graphs, through CuPy."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradwire_engine.backend import Array
from gradwire_engine.plans.cuda import kernels

_OPTIONS = ("--std=c++14",)
# The cuBLAS math modes: CUBLAS_DEFAULT_MATH, which does not use TF32, and CUBLAS_TF32_TENSOR_OP_MATH.
_DEFAULT_MATH, _TF32_MATH = 0, 3


class Device:
    """The first GPU that is visible to CuPy. Its arrays are CuPy arrays. All work runs in order on one stream."""

    def __init__(self, cupy: Any, dtype: "np.dtype[Any]", *, tf32: bool) -> None:
        """Compile the kernels for single steps.

        Args:
            cupy: The CuPy module.
            dtype: The dtype for arithmetic, float32 or float64.
            tf32: Whether float32 products may run on tensor cores, which round the factors to 10 mantissa bits.
        """
        self._cupy = cupy
        module = cupy.RawModule(code=kernels.step_source(dtype.name), options=_OPTIONS)
        self._kernels = {name: module.get_function(name) for name in kernels.STEP_KERNELS}
        self._dtype = dtype
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._cublas = cupy.cuda.cublas
        self._handle = cupy.cuda.device.get_cublas_handle()
        self._cublas.setMathMode(self._handle, _TF32_MATH if tf32 else _DEFAULT_MATH)
        self._multiply = self._cublas.sgemm if dtype == np.float32 else self._cublas.dgemm
        attributes = cupy.cuda.Device().attributes
        self._multiprocessors: int = attributes["MultiProcessorCount"]
        # This is 0 if the GPU does not support cooperative launches.
        self._max_shared_bytes: int = attributes["MaxSharedMemoryPerBlockOptin"] * attributes["CooperativeLaunch"]

    def free_bytes(self) -> int:
        """Return the number of bytes that can be allocated, including unused memory in CuPy's pool."""
        free, _total = self._cupy.cuda.runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def zeros(self, shape: int | tuple[int, ...], dtype: "np.dtype[Any]") -> Any:
        """Return a new device array that is filled with zeros."""
        with self._stream:
            return self._cupy.zeros(shape, dtype)

    def copy_in(self, target: Any, array: Array) -> None:
        """Copy a host array to the beginning of a device array. Both arrays must have the same dtype."""
        with self._stream:
            target.ravel()[: array.size].set(np.ascontiguousarray(array).ravel())

    def copy_out(self, array: Any) -> NDArray[Any]:
        """Wait for all previously launched work, and return a copy of a device array in host memory."""
        with self._stream:
            host: NDArray[Any] = array.get()
        return host

    def launch(self, kernel: str, threads: int, arguments: tuple[Any, ...]) -> None:
        """Run one of the kernels in STEP_KERNELS with at least `threads` threads."""
        blocks = -(-threads // kernels.BLOCK)
        size = min(threads, kernels.BLOCK)
        with self._stream:
            self._kernels[kernel]((blocks,), (size,), _converted(arguments))

    def fits_cooperative(self, blocks: int, shared_bytes: int) -> bool:
        """Return whether all blocks of the persistent kernel can run at the same time.

        Without this check, CuPy would print a warning and start fewer blocks.

        Args:
            blocks: The number of blocks.
            shared_bytes: The shared memory for each block, in bytes.
        """
        if shared_bytes > self._max_shared_bytes:
            return False
        self._persistent_kernel.max_dynamic_shared_size_bytes = shared_bytes
        blocks_per_multiprocessor = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            self._persistent_kernel.kernel.ptr, kernels.PERSISTENT_THREADS, shared_bytes
        )
        return blocks <= int(blocks_per_multiprocessor) * self._multiprocessors

    def launch_cooperative(self, blocks: int, shared_bytes: int, arguments: kernels.PersistentArguments) -> None:
        """Run the persistent kernel with a number of blocks for which `fits_cooperative` returned true."""
        kernel = self._persistent_kernel
        kernel.max_dynamic_shared_size_bytes = shared_bytes
        with self._stream:
            kernel((blocks,), (kernels.PERSISTENT_THREADS,), _converted(arguments), shared_mem=shared_bytes)

    def multiply(
        self, a: Any, b: Any, out: Any, *, transpose_a: bool, transpose_b: bool, alpha: float, beta: float
    ) -> None:
        """Compute out = alpha * op(a) @ op(b) + beta * out, for row-major matrices.

        op transposes its argument if `transpose_a` or `transpose_b` is true. cuBLAS uses column-major order, so the
        arguments are passed as if each matrix were transposed.
        """
        rows, columns = out.shape
        inner = a.shape[0] if transpose_a else a.shape[1]
        factors = np.array([alpha, beta], self._dtype)
        with self._stream:
            self._multiply(
                self._handle,
                int(transpose_b),
                int(transpose_a),
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
        """Record the launches in `work` as a CUDA graph without running them, and return a function that runs it."""
        with self._stream:
            self._stream.begin_capture()
            try:
                work()
            finally:
                graph = self._stream.end_capture()
        return lambda: graph.launch(self._stream)

    @cached_property
    def _persistent_kernel(self) -> Any:
        # The kernel is compiled when it is first needed.
        text = kernels.persistent_source(self._dtype.name)
        module = self._cupy.RawModule(code=text, options=_OPTIONS, enable_cooperative_groups=True)
        return module.get_function(kernels.PERSISTENT_KERNEL)


def _converted(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Convert each int or bool to int32, which is int in CUDA. CuPy would pass it as a long long or a bool."""
    return tuple(np.int32(argument) if isinstance(argument, int) else argument for argument in arguments)
