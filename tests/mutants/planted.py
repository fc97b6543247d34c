"""Plants each bug in the folder `planted` in a copy of the repository, and checks that the tests it names detect it."""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).parent / "planted"
SOURCES = ("proto", "engine", "worker", "server", "client_sdk")
# A bug can make a test wait forever. In that case, pytest stops the test, which counts as a failure.
TEST_SECONDS = 120
COPIES = ROOT / ".cache" / "mutants"


@dataclass(frozen=True)
class PlantedBug:
    """A patch, a description of the bug, and the tests that must fail with the patch."""

    path: Path
    bug: str
    tests: tuple[str, ...]


def read(path: Path) -> PlantedBug:
    """Return a planted bug. Raises ValueError if the header does not have the format in README.md."""
    header, separator, patch = path.read_text().partition("\ndiff --git ")
    bugs, tests = re.findall(r"^Bug: (\S.*)$", header, re.MULTILINE), re.findall(r"^Test: (\S+)$", header, re.MULTILINE)
    if len(bugs) != 1 or not tests or not separator:
        raise ValueError(f"{path.name}: must have one line 'Bug: ...', lines 'Test: ...' and a patch of git diff")
    outside = [
        name for name in re.findall(r"^\+\+\+ b/(.*)$", patch, re.MULTILINE) if name.split("/")[0] not in SOURCES
    ]
    if outside:
        raise ValueError(f"{path.name}: patches {', '.join(outside)}, which is no code of the packages")
    return PlantedBug(path, bugs[0], tuple(tests))


class Copy:
    """A copy of the repository in which bugs can be planted.

    The copy has the same path in every run, and its files keep their modification times, so that Numba finds the code
    that it compiled in an earlier run.
    """

    def __init__(self, name: str) -> None:
        self.folder = folder = COPIES / name
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (COPIES / f"{name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another run uses {folder}; wait for its end") from None
        shutil.rmtree(folder)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for path in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
            if path and (ROOT / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, folder / path)

    def apply(self, patch: Path, *options: str) -> str:
        """Apply a patch. Return the reason why it does not apply, or an empty string."""
        # Inside another repository, git would interpret the paths relative to that repository.
        environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(self.folder.parent)}
        # One line around the change must be unchanged. Comments further away can differ.
        command = ["git", "apply", "-C1", *options, str(patch)]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        # If a patch applies with less context, git mentions that on stderr.
        return done.stderr.strip() if done.returncode else ""

    def warm_up(self) -> None:
        """Compile the plans, so that no test has to wait for compilation."""
        command = [sys.executable, "-c", "from gradwire_engine.plans import warm_up; warm_up()"]
        subprocess.run(command, cwd=self.folder, env=self._environment, check=True)

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(str(self.folder / source) for source in SOURCES),
            # Python would compare only the size and the modification time in seconds, which can be the same for a
            # patched file.
            "PYTHONDONTWRITEBYTECODE": "1",
            # The tests use small matrices, for which BLAS threads that wait for each other are slow.
            "OPENBLAS_NUM_THREADS": "1",
        }

    def failures(self, tests: Sequence[str]) -> tuple[int, list[str], str]:
        """Run tests in the copy, and return pytest's exit code, the tests that failed, and the output."""
        options = ["-q", "-rf", "--tb=line", "--no-header", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        return done.returncode, re.findall(r"^FAILED ([^\s\[]+)", output, re.MULTILINE), output


def check(copy: Copy, bug: PlantedBug) -> str:
    """Plant a bug and run its tests. Return a description of the problem, or an empty string if every test fails."""
    trouble = copy.apply(bug.path)
    if trouble:
        return f"the patch does not apply: {trouble}"
    try:
        code, failed, output = copy.failures(bug.tests)
    finally:
        copy.apply(bug.path, "--reverse")
    passed = [test for test in bug.tests if test not in failed]
    if code not in (0, 1):
        return f"pytest ended with {code}:\n{output[-2000:]}"
    return "; ".join(f"not caught by {test}" for test in passed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only the patches whose file name contains one of these")
    parser.add_argument("--minutes", type=float, default=60, help="time limit; bugs that were not run count as missed")
    options = parser.parse_args()
    paths = sorted(PLANTED.glob("*.patch"))
    bugs = [read(path) for path in paths if not options.names or any(name in path.name for name in options.names)]
    if not bugs:
        parser.error("there is no such patch")
    started = time.monotonic()
    copy = Copy("planted")
    copy.warm_up()
    code, failed, output = copy.failures(sorted({test for bug in bugs for test in bug.tests}))
    if code:
        print(f"{output[-4000:]}\nThese tests fail without a planted bug: {', '.join(failed) or 'see above'}")
        return 1
    missed = 0
    for bug in bugs:
        in_time = time.monotonic() - started < options.minutes * 60
        trouble = check(copy, bug) if in_time else f"not run within {options.minutes:g} minutes"
        missed += bool(trouble)
        print(f"{'MISSED' if trouble else 'caught'}  {bug.path.stem}: {bug.bug}", flush=True)
        if trouble:
            print(f"        {trouble}", flush=True)
    seconds = time.monotonic() - started
    print(f"planted bugs: {len(bugs) - missed} of {len(bugs)} caught by the tests named for them, in {seconds:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
