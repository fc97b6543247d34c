"""Checks that docs/reliability.md and docs/security.md name tests, and that a planted bug breaks each promise."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE, _, _FIGURES = (ROOT / "docs" / "reliability.md").read_text().partition("## Fault runs")
PROMISES = re.findall(r"^\| (?!guarantee|---)(.*) \| (.*) \|$", PAGE, re.MULTILINE)
THREATS = re.findall(
    r"^\| (?!threat|---)(.*) \| .* \| (.*) \|$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE
)
# The tests that fail because of a planted bug: tests/mutants/planted.py runs them with and without it.
SEEN_TO_FAIL = {
    test
    for patch in (ROOT / "tests" / "mutants" / "planted").glob("*.patch")
    for test in re.findall(r"^Test: (\S+)$", patch.read_text(), re.MULTILINE)
}


def named_by(held_by):
    """The tests that a promise names, as node ids, and the folders of tests."""
    for name in re.findall(r"`([^`]+)`", held_by):
        file, _, test = name.partition("::")
        if file.startswith("tests/"):
            assert (ROOT / file).is_dir(), file
            continue
        (found,) = (ROOT / "tests").rglob(file)
        assert f"def {test}(" in found.read_text(), name
        yield f"{found.relative_to(ROOT).as_posix()}::{test}"


@pytest.mark.parametrize(("promise", "held_by"), PROMISES, ids=[promise[:50] for promise, _ in PROMISES])
def test_every_promise_has_tests_that_were_seen_to_fail(promise, held_by):
    tests = list(named_by(held_by))
    assert tests, promise
    if promise.startswith("In the Compose deployment"):
        assert all(test.startswith("tests/compose/") for test in tests)
    else:
        assert SEEN_TO_FAIL & set(tests), f"plant a bug that breaks this promise: {promise}"


@pytest.mark.parametrize(("threat", "held_by"), THREATS, ids=[threat[:50] for threat, _ in THREATS])
def test_every_guard_has_tests(threat, held_by):
    assert list(named_by(held_by)), threat
