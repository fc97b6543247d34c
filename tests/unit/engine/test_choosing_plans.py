"""Which plan a job gets, and what is said where it cannot have the fastest."""

import os
import subprocess
import sys

import numpy as np
import pytest

import gradwire as gw
from gradwire import SGD, CrossEntropy
from gradwire_engine import MSE
from gradwire_engine.network import Network
from gradwire_engine.plans import NoGpuError, Problem, choose_plan
from gradwire_engine.plans.compiled import availability as readiness
from gradwire_engine.plans.compiled import code_cache as storage

PROBLEM = Problem(Network.from_stack([(3, 2)]), MSE(), np.dtype(np.float32))
START = np.zeros(PROBLEM.network.size, np.float32)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.delenv("GRADWIRE_PLAN", raising=False)
    remembered = (readiness.why_not, readiness.vector_registers, storage.folder)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


def chosen():
    return choose_plan(PROBLEM, START, "auto")


def test_a_job_gets_the_compiled_plan():
    assert (chosen().plan.name, chosen().warning) == ("compiled", "")


def test_the_environment_forces_a_plan(monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    assert (chosen().plan.name, chosen().warning) == ("reference", "")
    assert "GRADWIRE_PLAN is reference" in chosen().reason
    monkeypatch.setenv("GRADWIRE_PLAN", "fastest")
    with pytest.raises(ValueError, match="must be one of reference, compiled, got 'fastest'"):
        chosen()


def test_without_numba_the_reference_plan_runs_and_says_so(monkeypatch, digits, model):
    monkeypatch.setattr(readiness, "find_spec", lambda _name: None)
    assert chosen().plan.name == "reference"
    with pytest.warns(UserWarning, match="slower reference plan does: Numba is not installed"):
        history = gw.fit(
            model, digits.train, loss=CrossEntropy(), optimizer=SGD(model), epochs=1, at="local", progress=False
        )
    assert history.plan.name == "reference"
    monkeypatch.setenv("GRADWIRE_PLAN", "compiled")
    with pytest.raises(ValueError, match="cannot run here: Numba is not installed"):
        chosen()


def test_a_processor_without_a_fitting_vector_unit_gets_the_reference_plan(monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {"avx2": True, "fma": False})
    assert chosen().plan.name == "reference"
    assert "no vector unit" in chosen().warning


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashed with signal 4"),
        (
            "raise ArithmeticError('weights differ by 1')",
            "did not pass its check: ArithmeticError: weights differ by 1",
        ),
    ],
)
def test_code_that_crashes_or_computes_wrongly_is_not_used(monkeypatch, tmp_path, program, said):
    monkeypatch.setenv("GRADWIRE_CACHE", str(tmp_path))
    real = subprocess.run
    monkeypatch.setattr(
        readiness.subprocess, "run", lambda _command, **how: real([sys.executable, "-c", program], **how)
    )
    assert chosen().plan.name == "reference"
    assert said in chosen().warning
    assert not list(tmp_path.rglob("passed"))


def test_what_passed_is_not_checked_again(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADWIRE_CACHE", str(tmp_path))
    (storage.folder() / "passed").touch()
    monkeypatch.setattr(readiness, "_check", lambda: pytest.fail("it was checked again"))
    assert readiness.why_not() == ""


def test_code_is_not_kept_where_others_could_write(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("GRADWIRE_CACHE", str(shared))
    assert not storage.folder().is_relative_to(shared)


def test_a_home_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.delenv("GRADWIRE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert os.access(storage.folder(), os.W_OK)


def test_a_gpu_that_is_not_there_is_an_error_only_where_one_was_asked_for(monkeypatch):
    monkeypatch.setattr("gradwire_engine.plans.gpu_module", lambda: (None, "CuPy sees no GPU"))
    with pytest.raises(NoGpuError, match="CuPy sees no GPU"):
        choose_plan(PROBLEM, START, "gpu")
    assert chosen().device == "cpu"
    assert chosen().reason == "CuPy sees no GPU"
