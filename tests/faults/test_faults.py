"""A short form of `make faults`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_a_short_fault_run_loses_nothing():
    command = [sys.executable, Path(__file__).with_name("run.py"), "--faults", "8", "--seed", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=290, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "8 faults injected" in run.stdout
    assert ", 0 violations" in run.stdout
