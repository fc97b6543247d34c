"""Runs all benchmarks, or those named on the command line, for example: python -m benchmarks service events."""

import sys

from benchmarks import calls, events, mapped, page, service, structure
from gradwire.cli.bench.command import bench


def _engine() -> None:
    """Compare the engine with other libraries, as `gradwire bench` does."""
    bench(task=None, threads=None, rounds=5, only="", plot=None, gpu=False, as_json=False)


BENCHMARKS = {
    "service": service.main,
    "calls": calls.main,
    "events": events.main,
    "mapped": mapped.main,
    "page": page.main,
    "engine": _engine,
    "structure": structure.main,
}


def main() -> None:
    """Run the benchmarks and print their figures."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"unknown benchmark {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name]()


main()
