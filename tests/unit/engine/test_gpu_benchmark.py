"""The parts of benchmarks.gpu and of the benchmark report that run without a GPU."""

import json
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from gradwire.cli.bench.engine import Result
from gradwire.cli.bench.report import Comparison, Report, compare, to_text

ROOT = Path(__file__).parents[3]
COMPARISON = Comparison("cpu", "a processor", 1, ["20-16-4:5"], rounds=1)
OURS = Result((20, 16, 4), 5, "gradwire", 2.0, 1.0, 1.0, 50.0, 0.0)
PEER = Result((20, 16, 4), 5, "a peer", 4.0, 2.0, 1.5, 25.0, 1e-6)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import gpu

    return gpu


def engine_that_prints(*lines, then=""):
    return [sys.executable, "-c", f"import sys, time\nfor line in {lines!r}: print(line, flush=True)\n{then}"]


@pytest.mark.skipif(find_spec("cupy") is not None, reason="CuPy is installed here")
def test_without_cupy_one_line_says_what_is_missing():
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cupy must be installed for {sys.executable}: run this on a GPU machine\n"


def test_it_imports_only_numpy_and_what_is_in_the_repository():
    program = """
import sys
before = set(sys.modules)
for name in ("grpc", "google", "gradwire_proto", "sklearn", "hypothesis", "typer", "rich", "ray", "numba"):
    sys.modules[name] = None  # An import of it fails.
from benchmarks import gpu
sys.path[:0] = gpu.FOLDERS
gpu.use_bench_without_client()
from gradwire.cli.bench import engine, report
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=280, check=True)


def test_tests_that_fail_are_shown_with_their_output(gpu, tmp_path, capsys):
    passing, failing = tmp_path / "test_passing.py", tmp_path / "test_failing.py"
    passing.write_text("def test_one(): pass\n")
    failing.write_text("def test_two(): assert 1 == 2\n")
    log = gpu.Log()
    assert gpu.run_tests(log, [str(passing)], 60)
    assert not gpu.run_tests(log, [str(failing)], 60)
    assert "tests: 1 passed" in log.text()
    assert "assert 1 == 2" in log.text()
    assert capsys.readouterr().out.split() == log.text().split()


def test_a_device_name_becomes_part_of_a_file_name(gpu):
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_a_report_shows_ratios_and_what_was_left_out():
    text = to_text(Report("a GPU", 2, 100.0, {"torch.compile": "torch is not installed"}, [OURS, PEER]))
    assert text.splitlines() == [
        "a GPU, 2 threads; sgemm reaches 100 GFLOP/s",
        "left out: torch.compile, torch is not installed",
        "",
        "time relative to gradwire: training",
        "| network | batch | gradwire, us/step | of sgemm | a peer |",
        "|---------|------:|------------------:|---------:|-------:|",
        "| 20-16-4 |     5 |               2.0 |     50 % |   2.00 |",
        "",
        "time relative to gradwire: whole epochs, with evaluation",
        "| network | batch | gradwire, us/step | of sgemm | a peer |",
        "|---------|------:|------------------:|---------:|-------:|",
        "| 20-16-4 |     5 |               2.0 |     50 % |   1.50 |",
    ]


def test_a_comparison_that_is_stopped_keeps_its_results_so_far():
    head = json.dumps({"gemm_peak": 100.0, "missing": {}})
    part = json.dumps({"results": [asdict(OURS)], "failed": {"a peer": "RuntimeError: no memory"}})
    endless = engine_that_prints(head, part, then="time.sleep(600)")
    report = compare(Comparison("cpu", "a processor", 1, ["20-16-4:5"], rounds=1, timeout=5), endless)
    assert report.results == [OURS]
    assert report.missing == {"a peer": "RuntimeError: no memory"}
    assert report.error == "stopped after 5 s"
    assert "the comparison is incomplete: stopped after 5 s" in to_text(report)


def test_a_comparison_that_crashes_says_so():
    report = compare(COMPARISON, engine_that_prints(then="sys.exit(3)"))
    assert (report.results, report.error) == ([], "exit status 3")
    assert "the comparison is incomplete: exit status 3" in to_text(report)
