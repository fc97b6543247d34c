"""Tests and benchmarks the CUDA plan on this machine's GPU. Run `python3 -m benchmarks.gpu` in the repository.

The script needs NumPy and CuPy. It imports gradwire from the repository, so gradwire does not have to be installed. It
runs the GPU tests if pytest is installed, and a comparison with PyTorch and JAX if they are installed. It prints the
results and writes them to benchmarks/results/gpu-<device>.txt. It takes at most ten minutes.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
FOLDERS = [str(ROOT / folder) for folder in ("", "proto", "engine", "client_sdk", "tests")]
TESTS = [str(ROOT / "tests" / "unit" / "engine" / "test_cuda_plan.py")]
# The time limits for the whole run and for the tests.
SECONDS, TEST_SECONDS = 570, 360
LIBRARIES = ("numpy", "numba", "jax", "torch")


class Log:
    """Prints text, and keeps a copy for the results file."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        """Print a paragraph."""
        print(f"{text}\n", flush=True)
        self._parts.append(text)

    def text(self) -> str:
        """Return everything that was printed."""
        return "\n\n".join(self._parts) + "\n"


def main() -> None:
    """Test and benchmark the CUDA plan on the GPU of this machine."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu", description=main.__doc__)
    parser.add_argument("--part", choices=["tests", "bench"], help="run only this part")
    parser.add_argument("--task", action="append", help="widths and batch sizes, for example 784-128-32-10:10,128")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each contender (default: 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the result")
    options = parser.parse_args()
    started = time.monotonic()
    cupy, name = use_repository()
    log = Log()
    log.add(describe(cupy, name))
    passed = True
    if options.part != "bench":
        passed = run_tests(log, TESTS, TEST_SECONDS)
    if options.part != "tests":
        remaining = SECONDS - (time.monotonic() - started)
        passed = run_bench(log, name, options.task, options.rounds, remaining) and passed
    path = options.output / f"gpu-{slug(name)}.txt"
    path.write_text(log.text())
    print(f"wrote {path}")
    sys.exit(not passed)


def use_repository() -> tuple[ModuleType, str]:
    """Make the repository importable, here and in child processes. Return cupy and the GPU's name."""
    missing = [module for module in ("numpy", "cupy") if find_spec(module) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} must be installed for {sys.executable}: run this on a GPU machine")
    sys.path[:0] = FOLDERS
    os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])
    from gradwire_engine.backend import gpu_module

    cupy, found = gpu_module()
    if cupy is None:
        sys.exit(f"there is no GPU here: {found}")
    return cupy, found


def describe(cupy: ModuleType, name: str) -> str:
    """Return the GPU's name, its driver, and the library versions."""
    cuda = cupy.cuda.runtime.driverGetVersion()
    versions = [f"Python {platform.python_version()}", f"CuPy {cupy.__version__}"]
    versions += [f"{library} {_version(library)}" for library in LIBRARIES]
    lines = [
        f"{name}, {time.strftime('%Y-%m-%d')}",
        f"driver {_driver()} for CUDA {cuda // 1000}.{cuda % 1000 // 10}",
        ", ".join(versions),
    ]
    return "\n".join(lines)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "(not installed)"


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "(version unknown, because nvidia-smi failed)"
    return done.stdout.strip().partition("\n")[0]


def run_tests(log: Log, files: list[str], seconds: float) -> bool:
    """Run test files or, if pytest is not installed, the self-check of the CUDA plan. Return whether they passed."""
    if find_spec("pytest") is None:
        return _self_check(log)
    # Ignore the options in pyproject.toml and conftest.py, because both need packages that may be missing.
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={ROOT}", "--noconftest", "-q", "-rs"]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", *files]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        log.add(f"tests: stopped after {seconds:.0f} s")
        return False
    output = done.stdout.strip() or done.stderr.strip()
    log.add(f"tests: {output.splitlines()[-1]}" if done.returncode == 0 else f"tests failed:\n{output}")
    return done.returncode == 0


def _self_check(log: Log) -> bool:
    from gradwire_engine.plans.cuda.availability import unavailable_reason

    reason = unavailable_reason()
    verdict = "the CUDA plan agrees with the reference plan" if reason is None else f"it failed: {reason}"
    log.add(f"self-check, because pytest is not installed: {verdict}")
    return reason is None


def run_bench(log: Log, name: str, tasks: list[str] | None, rounds: int, seconds: float) -> bool:
    """Compare the CUDA plan with other libraries. Return whether the comparison is complete."""
    from gradwire_engine.plans.cuda.availability import unavailable_reason

    reason = unavailable_reason()
    if reason is not None:
        log.add(f"no benchmark, because the CUDA plan cannot run here: {reason}")
        return False
    use_bench_without_client()
    from gradwire.cli.bench.report import TASKS, Comparison, compare, to_text

    threads = len(os.sched_getaffinity(0))
    comparison = Comparison("gpu", name, threads, tasks or TASKS["gpu"], rounds, timeout=seconds)
    report = compare(comparison, [sys.executable, "-m", "benchmarks.gpu_engine"])
    log.add(to_text(report))
    return report.error is None


def use_bench_without_client() -> None:
    """Make gradwire.cli.bench importable without gradwire/__init__.py, which needs gRPC."""
    package = ModuleType("gradwire")
    package.__path__ = [str(ROOT / "client_sdk" / "gradwire")]
    sys.modules["gradwire"] = package


def slug(name: str) -> str:
    """Convert a device name for use in a file name, for example "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
