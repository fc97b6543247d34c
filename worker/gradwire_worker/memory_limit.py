"""Limits the memory of a worker, so that a job that needs more fails before the machine runs out of memory."""

import sys
from contextlib import suppress
from pathlib import Path

# Python and Ray need some memory themselves, for example for the stacks of threads.
_RESERVE_BYTES = 256 << 20
_STATUS = Path("/proc/self/status")


def limit_memory(size: int) -> None:
    """Limit the memory that attempts can use beyond what this process uses now. Larger attempts get a MemoryError.

    Shared memory and mapped files do not count. On systems other than Linux, there is no limit.

    Args:
        size: The additional memory, in bytes.
    """
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  (not on every platform)

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + size + _RESERVE_BYTES
    with suppress(ValueError):  # A lower limit is already set.
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _data_bytes() -> int:
    """Return the size of the private writable memory of this process, which RLIMIT_DATA limits."""
    lines = _STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmData:")).split()[1]) << 10
