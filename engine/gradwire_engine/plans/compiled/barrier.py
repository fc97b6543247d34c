"""A barrier for the threads that run the same compiled loop. A wait takes less than a microsecond."""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# The number of times that a thread reads the barrier, which takes about a microsecond, before it yields the processor.
# It must yield in case the thread that it waits for needs the same processor.
_SPINS = 100


@intrinsic
def _atomic_add(typing_context, address, amount):
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _yield_processor(typing_context):
    def generate(context, builder, signature, arguments):
        function_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(nogil=True, cache=True)
def wait(barrier_at, threads, waits):
    """Wait until all threads have reached the barrier.

    Args:
        barrier_at: The address of an int64, initially 0, that counts the arrivals of all threads.
        threads: The number of threads that use the barrier.
        waits: The number of times that this thread has already waited at the barrier.

    Returns:
        waits + 1.
    """
    waits += 1
    if threads > 1:
        arrived = _atomic_add(barrier_at, 1) + 1
        spins = 0
        while arrived < waits * threads:
            spins += 1
            if spins > _SPINS:
                _yield_processor()
            arrived = _atomic_add(barrier_at, 0)
    return waits
