"""`gradwire bench` and `gradwire doctor`, with the libraries that are installed for the tests."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_cupy import FakeCupy

from gradwire.cli import doctor
from gradwire.cli import openblas as blas
from gradwire.cli.bench import engine
from gradwire_engine.backend import gpu_module

GRADWIRE = str(Path(sys.executable).parent / "gradwire")


def run(*arguments):
    return subprocess.run([GRADWIRE, *arguments], capture_output=True, text=True, timeout=280, check=True).stdout


def test_bench_runs_all_libraries_with_the_same_weights():
    peers = "chapter (NumPy),JAX jit + scan,scikit-learn"
    arguments = ("bench", "--task", "20-16-4:5,8", "--threads", "1", "--rounds", "1", "--only", peers)
    (report,) = json.loads(run(*arguments, "--json"))
    assert [result["contender"] for result in report["results"]] == ["gradwire", *peers.split(",")] * 2
    assert all(result["difference"] < 1e-3 for result in report["results"])
    assert "time relative to gradwire" in run(*arguments, "--only", "scikit-learn")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: apt-get install g++")
def test_bench_on_a_gpu_runs_the_cuda_plan(tmp_path, monkeypatch):
    """The GPU is simulated, and the other libraries are left out because they need a real GPU."""
    cupy = FakeCupy(tmp_path)
    for module in ("gradwire_engine.plans", "gradwire_engine.plans.cuda.availability"):
        monkeypatch.setattr(f"{module}.gpu_module", lambda: (cupy, "a GPU"))
    monkeypatch.setattr(engine, "_EPOCH_FLOPS", 1e5)
    (result,), failed = engine.run("gpu", (20, 16, 4), 5, ["gradwire"], rounds=1)
    assert not failed
    assert (result.contender, result.ratio, result.difference) == ("gradwire", 1.0, 0.0)
    assert cupy.cooperative_launches


@pytest.mark.skipif(gpu_module()[0] is not None, reason="this machine has a GPU")
def test_bench_without_a_gpu_reports_an_error():
    done = subprocess.run([GRADWIRE, "bench", "--gpu"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 2
    assert "--gpu: no GPU can be used on this machine: CuPy" in done.stderr


def test_doctor_shows_the_plan_and_the_speed_of_blas(monkeypatch, capsys):
    found = json.loads(run("doctor", "--json"))
    assert found["plan"] == "compiled"
    assert found["gain"] > 0
    assert [core_type["name"] for core_type in found["openblas"]] == ["", *blas.CORE_TYPES]
    measured = doctor.Diagnosis(**found | {"openblas": [blas.CoreType(**each) for each in found["openblas"]]})
    monkeypatch.setattr(doctor, "diagnose", lambda: measured)  # Measuring it again would take seconds.
    doctor.doctor()
    assert "the fastest that runs here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "trouble"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashes with signal 4"),
        ("raise SystemExit('wrong numbers')", "wrong numbers"),
    ],
)
def test_a_core_type_that_crashes_or_computes_wrongly_is_named(monkeypatch, program, trouble):
    monkeypatch.setattr(blas, "_PROGRAM", program)
    assert blas.measure("Haswell") == blas.CoreType("Haswell", 0.0, trouble)
