"""Checks that the tests exist that docs/reliability.md names for its promises."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE, _, _FIGURES = (ROOT / "docs" / "reliability.md").read_text().partition("## Fault runs")
PROMISES = re.findall(r"^\| (?!promise|---)(.*) \| (.*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("promise", "held_by"), PROMISES, ids=[promise[:50] for promise, _ in PROMISES])
def test_every_promise_names_an_existing_test(promise, held_by):
    names = re.findall(r"`([^`]+)`", held_by)
    assert names or held_by == "the same", promise
    for name in names:
        file, _, test = name.partition("::")
        if file.startswith("tests/"):
            assert (ROOT / file).is_dir(), file
            continue
        (found,) = (ROOT / "tests").rglob(file)
        assert not test or f"def {test}(" in found.read_text(), name
