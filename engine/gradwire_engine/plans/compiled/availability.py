"""Whether the compiled plan can be used on this machine; found out once, in a process of its own."""

import fcntl
import platform
import subprocess
import sys
from functools import cache
from importlib.util import find_spec

# Compiling everything takes about ten seconds; a loaded machine gets more.
_CHECK_SECONDS = 300
_LINE_BYTES = 64


@cache
def vector_registers() -> int:
    """Return how many lines of 64 bytes this processor's vector registers hold; 0 without fused multiply-add."""
    import llvmlite.binding as llvm  # noqa: PLC0415  (comes with Numba)

    if platform.machine() in ("aarch64", "arm64"):
        return 32 * 16 // _LINE_BYTES
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 32 * 64 // _LINE_BYTES
    return 16 * 32 // _LINE_BYTES if features.get("avx2") and features.get("fma") else 0


@cache
def why_not() -> str:
    """Return why the compiled plan cannot be used, or "" if it can.

    The first time on a machine this compiles the plan's code and trains with it, in a child process: code that crashes
    there, or computes something else than the reference plan, is not used. What passed is not tried again.
    """
    if find_spec("numba") is None:
        return "Numba is not installed (extra `fast`)"
    if not vector_registers():
        return f"this processor ({platform.machine()}) has no vector unit with fused multiply-add"
    from gradwire_engine.plans.compiled.code_cache import folder  # noqa: PLC0415  (asks for Numba's version)

    passed = folder() / "passed"
    # Other processes that start at the same time wait for the first.
    with (folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if passed.exists():
            return ""
        reason = _check()
        if not reason:
            passed.touch()
        return reason


def _check() -> str:
    command = [sys.executable, "-m", "gradwire_engine.plans.compiled.self_check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its code could not be checked: {error}"
    if done.returncode < 0:
        return f"its code crashed with signal {-done.returncode} when it was checked"
    if done.returncode:
        return f"its code did not pass its check: {(done.stderr.strip() or 'no message').splitlines()[-1]}"
    return ""
