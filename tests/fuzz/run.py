"""Sends random calls to servers on SQLite and on Postgres, and fails if it finds a defect.

python tests/fuzz/run.py --calls 5000 --seed 0
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres
from fuzz.fuzzer import Report, fuzz, http_address

import gradwire as gw

_TOKEN = "fuzz-token"


def main() -> int:
    """Run the calls and print the report. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="number of calls for each database")
    parser.add_argument("--seed", type=int, default=0, help="random seed for the calls")
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    arguments = parser.parse_args()
    failed = False
    for name, store in (("SQLite", _sqlite), ("Postgres", _postgres)):
        if arguments.store not in ("both", name.lower()):
            continue
        with store() as environment:
            if environment is None:
                print(f"{name}: left out, because its programs are not installed")
                continue
            with gw.LocalServer(env={"GRADWIRE_TOKEN": _TOKEN, **environment}) as server:
                assert server.process is not None
                pid, http = server.process.pid, http_address(server.log)
                report = fuzz(server.address, http, _TOKEN, pid, calls=arguments.calls, seed=arguments.seed)
                alive = server.process.poll() is None
                log = server.log.read_text()
                tracebacks = log.count("Traceback")
                if tracebacks:
                    print(log)
        problems = report.problems()
        if not alive:
            problems.append("the server has ended")
        if tracebacks:
            problems.append(f"the log of the server has {tracebacks} tracebacks")
        _print(name, report, tracebacks, problems)
        failed = failed or bool(problems)
    return int(failed)


def _print(name: str, report: Report, tracebacks: int, problems: list[str]) -> None:
    print(f"{name}: {report.statuses.total()} calls, peak memory of the server {report.peak_mb:.0f} MB")
    for status, count in report.statuses.most_common():
        print(f"  {count:7} {status}")
    print(
        f"  GetJob beside them: {len(report.innocent_seconds)} calls, p50 {report.percentile(0.5):.1f} ms, "
        f"p99 {report.percentile(0.99):.1f} ms, slowest {report.percentile(1):.1f} ms"
    )
    print(f"  memory {report.growth_mb:+.0f} MB, descriptors {report.new_descriptors:+d}, tracebacks {tracebacks}")
    for problem in problems:
        print(f"  FAILED: {problem}")


@contextlib.contextmanager
def _sqlite() -> Iterator[dict[str, str] | None]:
    yield {}


@contextlib.contextmanager
def _postgres() -> Iterator[dict[str, str] | None]:
    if not postgres.PROGRAMS:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/tmp"))
    database = postgres.Postgres(folder)
    database.start()
    try:
        yield {"GRADWIRE_STORE": database.url}
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
