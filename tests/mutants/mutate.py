"""Mutates the modules of `MODULES` with Cosmic Ray, runs the unit tests of each, and prints mutation scores.

Cosmic Ray generates the mutants. The tests run in forks of a process that has already loaded the libraries, because a
new process for every mutant would spend nearly all of its time on imports. To keep to the time limit, it tests only a
random sample of the mutants, which is drawn with the same seed in every run.
"""

import argparse
import ast
import compileall
import difflib
import json
import os
import random
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import import_module
from multiprocessing import current_process, get_context
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest
from modules import MODULES
from planted import ROOT, SOURCES, Copy

# Equivalent mutants: for None, numbers and booleans, identity is the same as equality.
_EQUIVALENT = ("_Is_Eq", "_IsNot_NotEq", "_Eq_Is", "_NotEq_IsNot")
_MAX_TEST_SECONDS = 90
# Modules that the tests import and that no mutant changes. None of them starts a thread, because a forked process would
# not have that thread.
_LIBRARIES = (
    "grpc_health.v1.health",
    "grpc_status.rpc_status",
    "hypothesis",
    "matplotlib.figure",
    "numba",
    "pandas",
    "sklearn.datasets",
    "sklearn.metrics",
    "sqlalchemy",
    "gradwire_proto.v1.training_service_pb2_grpc",
)


@dataclass(frozen=True)
class Mutant:
    """A mutation of a module: a Cosmic Ray operator, applied at the n-th place where it fits."""

    operator: str
    occurrence: int
    line: int

    def apply(self, source: str) -> str:
        """Return the source of a module with this mutation, or unchanged if Cosmic Ray cannot apply it."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        try:
            return mutate_code(source, get_operator(self.operator)(), self.occurrence) or source
        except AttributeError:  # Cosmic Ray cannot replace an exception with a dotted name.
            return source

    def change(self, source: str) -> str:
        """Return the lines of a module's source that this mutant changes, before and after the change."""
        lines = difflib.unified_diff(source.splitlines(), self.apply(source).splitlines(), lineterm="", n=0)
        return "\n".join(f"        {line}" for line in lines if not line.startswith(("---", "+++", "@@")))


@dataclass
class Score:
    """The results for the mutants of a module."""

    module: str
    mutants: int
    killed: int = 0
    survivors: list[Mutant] = field(default_factory=list)
    trouble: str = ""

    @property
    def tested(self) -> int:
        return self.killed + len(self.survivors)

    def __str__(self) -> str:
        if self.trouble:
            return f"{self.module:<58}  {self.trouble}"
        share = f"{100 * self.killed / self.tested:.0f} %" if self.tested else "none tested"
        return f"{self.module:<58}  {share:>6}  {self.killed} of {self.tested} killed, {self.mutants} in total"


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield the mutants of a module, except those that no test can or should detect; see `_excluded`."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    excluded = list(_excluded(path.read_text()))
    tree = get_ast_from_path(path)
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or name.endswith(_EQUIVALENT):
            continue
        operator = operator()
        positions = (position for node in ast_nodes(tree) for position in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            if not any(first <= tuple(start) and tuple(end) <= last for first, last in excluded):
                yield Mutant(name, occurrence, start[0])


def _excluded(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield the places of annotations, `frozen=True`, `strict=True`, `if TYPE_CHECKING`, and texts of errors."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.AST | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.keyword) and node.arg in ("frozen", "strict"):
            parts.append(node.value)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            parts.append(node.test)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Violation")):
            parts += [part for part in ast.walk(node) if isinstance(part, ast.JoinedStr | ast.Slice)]
        for part in parts:
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)
    # The mark before keyword-only arguments, which Cosmic Ray takes for a multiplication.
    for number, line in enumerate(source.splitlines(), start=1):
        for mark in re.finditer(r"\*(?=,)", line):
            yield (number, mark.start()), (number, mark.end())


class Runner:
    """Runs tests on mutants in a copy of the repository."""

    def __init__(self) -> None:
        self._copy = Copy(f"mutants-{current_process()._identity[0]}")  # The processes of a pool are numbered from 1.
        self.root = self._copy.folder
        for source in SOURCES:
            compileall.compile_dir(self.root / source, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
        for module in MODULES:
            for cached in (self.root / module).parent.glob(f"__pycache__/{Path(module).stem}.*.pyc"):
                cached.unlink()
        sys.dont_write_bytecode = True
        sys.path[:0] = [str(self.root / source) for source in SOURCES]
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[: len(SOURCES)])
        os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"}
        for library in _LIBRARIES:
            import_module(library)

    def passes(self, tests: list[str], seconds: float) -> bool:
        """Run tests in a forked process, and return whether they all pass in time."""
        child = os.fork()
        if child == 0:
            self._test(tests)
        ended = os.pidfd_open(child)
        in_time, _, _ = select.select([ended], [], [], seconds)
        os.close(ended)
        if not in_time:
            os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def _test(self, tests: list[str]) -> None:
        code = 3
        try:
            os.setsid()
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            os.chdir(self.root)
            options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-seed=0"]
            code = int(pytest.main([*options, *tests]))
        finally:
            os._exit(code)

    def score(self, module: str, seconds: float, limit: int) -> Score:
        """Test a sample of the mutants of a module, for about `seconds` seconds."""
        path, tests = self.root / module, MODULES[module]
        source = path.read_text()
        found = list(mutants_of(path))
        random.Random(module).shuffle(found)
        score = Score(module, len(found))
        began = time.monotonic()
        if not self.passes(tests, _MAX_TEST_SECONDS):
            score.trouble = "the tests fail without a mutant"
            return score
        patience = 10 + 4 * (time.monotonic() - began)
        try:
            for mutant in found[:limit]:
                if time.monotonic() - began > seconds:
                    break
                mutated = mutant.apply(source)
                if mutated == source:
                    continue
                path.write_text(mutated)
                if self.passes(tests, min(patience, _MAX_TEST_SECONDS)):
                    score.survivors.append(mutant)
                else:
                    score.killed += 1
        finally:
            path.write_text(source)
        return score


_runner: Runner | None = None


def _score(module: str, seconds: float, limit: int) -> Score:
    global _runner  # noqa: PLW0603  (each process of the pool has one copy of the repository)
    _runner = _runner or Runner()
    return _runner.score(module, seconds, limit)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only the modules whose path contains one of these")
    parser.add_argument("--minutes", type=float, default=30, help="the time limit for all modules together")
    parser.add_argument("--limit", type=int, default=100, help="the largest sample for each module")
    parser.add_argument("--survivors", action="store_true", help="list the mutants that no test detected")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    options = parser.parse_args()
    modules = [module for module in MODULES if not options.names or any(name in module for name in options.names)]
    if not modules:
        parser.error("there is no such module in modules.py")
    processes = min(len(os.sched_getaffinity(0)), len(modules))
    seconds = options.minutes * 60 * processes / len(modules)
    scores: list[Score] = []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for score in pool.map(_score, modules, [seconds] * len(modules), [options.limit] * len(modules)):
            scores.append(score)
            print(score, flush=True)
            for mutant in score.survivors if options.survivors else []:
                print(f"    line {mutant.line}: {mutant.operator}, occurrence {mutant.occurrence}")
                print(mutant.change((ROOT / score.module).read_text()))
    killed, tested = sum(score.killed for score in scores), sum(score.tested for score in scores)
    print(f"mutants: {killed} of {tested} killed ({100 * killed / max(tested, 1):.0f} %), in {len(scores)} modules")
    if options.json:
        options.json.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n")
    return 1 if any(score.trouble for score in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
