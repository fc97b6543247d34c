"""Runs the benchmarks that are named on the command line, or all: python -m benchmarks [service ...]."""

import sys

from benchmarks import service

BENCHMARKS = {"service": service.main}


def main() -> None:
    """Run each and print its figures."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    for name in names:
        BENCHMARKS[name]()


main()
