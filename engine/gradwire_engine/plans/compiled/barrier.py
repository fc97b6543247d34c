"""What threads that run the same compiled loop need: a barrier that costs less than a microsecond."""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Looks at the barrier before a thread offers its processor to others, about a microsecond: where two threads have been
# put on one processor, each waits for the other.
_LOOKS = 100


@intrinsic
def _atomic_add(typing_context, address, amount):
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _give_way(typing_context):
    def generate(context, builder, signature, arguments):
        function_type = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit(nogil=True, cache=True)
def meet(barrier_at, threads, met):
    """Wait until all threads have come here once more, and return how often they have met; at first `met` is 0.

    barrier_at is the address of a number that counts the arrivals from 0.
    """
    met += 1
    if threads > 1:
        arrived = _atomic_add(barrier_at, 1) + 1
        looks = 0
        while arrived < met * threads:
            looks += 1
            if looks > _LOOKS:
                _give_way()
            arrived = _atomic_add(barrier_at, 0)
    return met
