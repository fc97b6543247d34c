"""The short form of `make conformance`: the clients that build in seconds, where their languages are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = ROOT / ".npm" / "node_modules" / ".bin" / "buf"


@pytest.mark.skipif(not BUF.exists(), reason="buf is not there: make lint installs it where there is npm")
@pytest.mark.timeout(600)
def test_clients_in_other_languages_come_to_the_same_weights():
    command = [sys.executable, ROOT / "tests" / "conformance" / "run.py", "shell", "typescript", "go"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)
    # A language that is not installed is no failure; a client that does not do as the others is one.
    assert ", 0 failed, " in run.stdout, run.stdout + run.stderr
    assert run.stdout.count("the same") >= 1
