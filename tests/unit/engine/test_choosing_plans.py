"""How a plan is chosen, and the warning if the fastest plan cannot run."""

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
from gradwire_engine.plans.compiled import availability, code_cache

PROBLEM = Problem(Network.from_stack([(3, 2)]), MSE(), np.dtype(np.float32))
START = np.zeros(PROBLEM.network.size, np.float32)


@pytest.fixture(autouse=True)
def _fresh_availability(monkeypatch):
    monkeypatch.delenv("GRADWIRE_PLAN", raising=False)
    cached = (availability.unavailable_reason, availability.vector_registers, code_cache.folder)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def chosen():
    return choose_plan(PROBLEM, START, "auto")


def test_a_job_gets_the_compiled_plan():
    assert (chosen().plan.name, chosen().warning) == ("compiled", None)


def test_the_environment_forces_a_plan(monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")
    assert (chosen().plan.name, chosen().warning) == ("reference", None)
    assert "GRADWIRE_PLAN is reference" in chosen().reason
    monkeypatch.setenv("GRADWIRE_PLAN", "fastest")
    with pytest.raises(ValueError, match="must be one of reference, compiled, cuda, got 'fastest'"):
        chosen()
    monkeypatch.setenv("GRADWIRE_PLAN", "cuda")
    with pytest.raises(ValueError, match="is cuda, which needs a GPU"):
        chosen()


def test_fit_reports_an_unknown_plan_in_the_environment(monkeypatch, digits, model):
    monkeypatch.setenv("GRADWIRE_PLAN", "fastest")
    with pytest.raises(gw.InvalidArgumentError, match="GRADWIRE_PLAN must be one of"):
        gw.fit(model, digits.train, loss=CrossEntropy(), optimizer=SGD(model), epochs=1, at="local")


def test_without_numba_a_job_gets_the_reference_plan_and_a_warning(monkeypatch, digits, model):
    monkeypatch.setattr(availability, "find_spec", lambda _name: None)
    assert chosen().plan.name == "reference"
    with pytest.warns(UserWarning, match="slower reference plan: Numba is not installed"):
        history = gw.fit(
            model, digits.train, loss=CrossEntropy(), optimizer=SGD(model), epochs=1, at="local", progress=False
        )
    assert history.plan.name == "reference"
    monkeypatch.setenv("GRADWIRE_PLAN", "compiled")
    with pytest.raises(ValueError, match="cannot run here: Numba is not installed"):
        chosen()


def test_without_fused_multiply_add_a_job_gets_the_reference_plan(monkeypatch):
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {"avx2": True, "fma": False})
    assert chosen().plan.name == "reference"
    assert "no vector unit" in chosen().warning


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashed with signal 4"),
        ("raise ArithmeticError('weights differ by 1')", "failed its check: ArithmeticError: weights differ by 1"),
    ],
)
def test_code_that_crashes_or_computes_wrongly_is_not_used(monkeypatch, tmp_path, program, reason):
    monkeypatch.setenv("GRADWIRE_CACHE", str(tmp_path))
    real = subprocess.run
    monkeypatch.setattr(
        availability.subprocess, "run", lambda _command, **how: real([sys.executable, "-c", program], **how)
    )
    assert chosen().plan.name == "reference"
    assert reason in chosen().warning
    assert not list(tmp_path.rglob("passed"))


def test_code_that_passed_is_not_checked_again(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADWIRE_CACHE", str(tmp_path))
    (code_cache.folder() / "passed").touch()
    monkeypatch.setattr(availability, "_check", lambda: pytest.fail("it was checked again"))
    assert availability.unavailable_reason() is None


def test_the_cached_code_depends_on_every_source_that_it_is_compiled_from():
    names = {path.name for path in code_cache._SOURCES}
    assert {"codes.py", "loops.py", "kernels.py", "tiles.py", "vector_intrinsics.py", "llvm_vectors.py"} <= names


def test_a_folder_that_others_can_write_to_is_not_used_as_cache(monkeypatch, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("GRADWIRE_CACHE", str(shared))
    assert not code_cache.folder().is_relative_to(shared)


def test_without_a_writable_home_the_cache_is_in_a_temporary_folder(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.delenv("GRADWIRE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert os.access(code_cache.folder(), os.W_OK)


def test_a_missing_gpu_is_an_error_only_if_the_job_requires_one(monkeypatch):
    monkeypatch.setattr("gradwire_engine.plans.gpu_module", lambda: (None, "CuPy sees no GPU"))
    with pytest.raises(NoGpuError, match="CuPy sees no GPU"):
        choose_plan(PROBLEM, START, "gpu")
    assert chosen().device == "cpu"
    assert chosen().reason == "CuPy sees no GPU"
