"""Checks once, in a child process, whether the compiled plan can run on this machine."""

import fcntl
import platform
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

# Compiling everything takes about 15 seconds. The limit leaves headroom for a machine under load.
_CHECK_SECONDS = 300
_LINE_BYTES = 64


@cache
def vector_registers() -> int:
    """Return the total size of the vector registers, in 64-byte lines, or 0 if the processor has no FMA."""
    import llvmlite.binding as llvm  # noqa: PLC0415  (comes with Numba)

    if platform.machine() in ("aarch64", "arm64"):
        return 32 * 16 // _LINE_BYTES
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 32 * 64 // _LINE_BYTES
    return 16 * 32 // _LINE_BYTES if features.get("avx2") and features.get("fma") else 0


@cache
def unavailable_reason() -> str | None:
    """Return why the compiled plan cannot run here, or None if it can.

    The first call on a machine compiles the plan's code and trains with it in a child process. If the code crashes or
    disagrees with the reference plan, the plan is not used. Code that passes the check is not checked again.
    """
    if find_spec("numba") is None:
        return "Numba is not installed (extra `fast`)"
    if not vector_registers():
        return f"this processor ({platform.machine()}) has no vector unit with fused multiply-add"
    from gradwire_engine.plans.compiled.code_cache import folder  # noqa: PLC0415  (needs Numba's version)

    passed = folder() / "passed"
    # If several processes start at the same time, only one runs the check, and the others wait for it.
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if passed.exists():
            return None
        reason = _check()
        if reason is None:
            passed.touch()
        return reason


def _check() -> str | None:
    command = [sys.executable, "-m", "gradwire_engine.plans.compiled.self_check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the check of its code did not finish: {error}"
    if done.returncode < 0:
        return f"its code crashed with signal {-done.returncode} when it was checked"
    if done.returncode:
        return f"its code failed its check: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
    return None
