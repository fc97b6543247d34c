"""The CUDA plan without a GPU: its kernels compile for every kind, and on a stand-in it agrees with the reference."""

import ctypes
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import FakeCupy

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import NoGpuError, Problem, ReferencePlan, agreement, choose_plan
from gradwire_engine.plans.cuda import kernels, readiness
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.plan import CudaPlan
from gradwire_engine.training import TrainingConfig, train

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not there: apt-get install g++")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def cupy(folder):
    return FakeCupy(folder)


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.delenv("GRADWIRE_PLAN", raising=False)
    readiness.cuda_obstacle.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ["compute_70", "compute_80", "compute_90", "compute_100"])
def test_the_kernels_compile_for_every_kind_of_gpu(dtype, architecture):
    """By NVIDIA's own compiler, which needs no GPU."""
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    if spec is None:
        pytest.skip("NVRTC is not there: pip install nvidia-cuda-nvrtc-cu12")
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("lib/libnvrtc.so.*"))))
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), kernels.source(dtype).encode(), b"kernels.cu", 0, None, None)
    options = (ctypes.c_char_p * 2)(f"--gpu-architecture={architecture}".encode(), b"--std=c++11")
    failed = library.nvrtcCompileProgram(program, 2, options)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, ptx)
    assert all(f".entry {name}(" in ptx.value.decode() for name in kernels.NAMES)


def examples(rng, rows, features, outputs, classification, kind):
    inputs = (rng.random((rows, features)) * 5).astype(kind)
    targets = rng.integers(0, outputs, rows) if classification else rng.random((rows, outputs))
    return Examples.of(inputs, targets, classification)


def both(cupy, stack, loss, set_, dtype=FLOAT64, epochs=3, batch_size=8):
    """What the two plans come to."""
    network = Network.from_stack(stack)
    problem = Problem(network, loss, dtype)
    weights = (np.random.default_rng(1).standard_normal(network.size) * 0.2).astype(dtype)
    config = TrainingConfig(epochs, batch_size, 0.05, True, 3)
    results = []
    for plan in (CudaPlan(problem, weights, Device(cupy, dtype, tf32=False)), ReferencePlan(problem, weights)):
        told = list(train(plan, config, set_, set_))
        results.append((plan.weights(), told, plan.predict(set_.inputs.astype(dtype))))
    return results


@needs_compiler
@pytest.mark.parametrize("rows", [1, 7, 8, 300])
@pytest.mark.parametrize("kind", ["float64", "float32", "uint8", "int16", "float16"])
@pytest.mark.parametrize(
    ("stack", "loss", "classification"),
    [
        ([(5, 9), None, (9, 4)], CrossEntropy(), True),
        ([None, (5, 3)], CrossEntropy(), True),
        ([(5, 4), (4, 6), None, (6, 1)], MSE(), False),
        ([(5, 6), None, (6, 2), None], MSE(), False),
    ],
)
def test_it_comes_to_what_the_reference_plan_does(cupy, stack, loss, classification, kind, rows):
    outputs = next(part for part in reversed(stack) if part)[1]
    set_ = examples(np.random.default_rng(0), rows, 5, outputs, classification, kind)
    (weights, told, predicted), (expected, expected_told, expected_predicted) = both(cupy, stack, loss, set_)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(predicted, expected_predicted, rtol=0, atol=1e-10)
    for mine, reference in zip(told, expected_told, strict=True):
        assert mine.running_loss == pytest.approx(reference.running_loss, abs=1e-10)
        for name, value in vars(reference.train).items():
            assert vars(mine.train)[name] == pytest.approx(value, abs=1e-9), name


@needs_compiler
def test_many_steps_run_from_one_graph(cupy):
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    both(cupy, [(5, 4)], CrossEntropy(), set_, epochs=4)
    steps = 4 * 41
    assert cupy.replays < steps / 2


@needs_compiler
def test_a_set_that_does_not_fit_comes_in_slabs_to_the_same_bits(cupy, folder):
    set_ = examples(np.random.default_rng(0), 3000, 5, 4, True, "float64")
    stack = [(5, 3), None, (3, 4)]
    (expected, told, _), _ = both(cupy, stack, CrossEntropy(), set_)
    small = FakeCupy(folder)
    network = Network.from_stack(stack)
    plan = CudaPlan(
        Problem(network, CrossEntropy(), FLOAT64),
        np.random.default_rng(1).standard_normal(network.size) * 0.2,
        Device(small, FLOAT64, tf32=False),
    )
    plan._make_room(3000, 3000)
    small.memory = small.used + 20_000  # For some 375 rows.
    config = TrainingConfig(3, 8, 0.05, True, 3)
    in_slabs = list(train(plan, config, set_, None))
    assert not plan.place(set_).resident
    assert np.array_equal(plan.weights(), expected)
    assert [epoch.train.loss for epoch in in_slabs] == pytest.approx([epoch.train.loss for epoch in told], abs=1e-12)


@needs_compiler
def test_what_does_not_fit_at_all_is_said(cupy):
    problem = Problem(Network.from_stack([(100, 100)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    cupy.memory = 10_000
    with pytest.raises(MemoryError, match="the weights need"):
        CudaPlan(problem, weights, Device(cupy, FLOAT32, tf32=False))
    cupy.memory = 200_000
    plan = CudaPlan(problem, weights, Device(cupy, FLOAT32, tf32=False))
    with pytest.raises(MemoryError, match=r"batches of 1000 rows need .* MiB of the GPU's memory"):
        plan.place(examples(np.random.default_rng(0), 1000, 100, 100, False, "float32"))


@needs_compiler
def test_a_job_gets_it_where_it_agrees_with_the_reference_plan_and_tf32_only_on_request(cupy, monkeypatch):
    monkeypatch.setattr("gradwire_engine.plans.gpu_module", lambda: (cupy, "a GPU"))
    problem = Problem(Network.from_stack([(3, 2)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    found = choose_plan(problem, weights, "auto")
    assert (found.plan.name, found.device, found.warning) == ("cuda", "gpu", "")
    assert set(cupy.math_modes) == {0}
    monkeypatch.setenv("GRADWIRE_TF32", "1")
    assert choose_plan(problem, weights, "gpu").reason == "this process has a GPU; GRADWIRE_TF32 is 1"
    assert cupy.math_modes[-1] == 3


@needs_compiler
def test_a_gpu_that_fails_gives_way_to_the_next_best_plan_with_the_reason(cupy, monkeypatch):
    monkeypatch.setattr("gradwire_engine.plans.gpu_module", lambda: (cupy, "a GPU"))
    problem = Problem(Network.from_stack([(3, 2)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    monkeypatch.setattr(agreement, "check", lambda _make: 1 / 0)
    # The stand-in cannot run the reference plan: the processor is next.
    found = choose_plan(problem, weights, "auto")
    assert (found.plan.name, found.device) == ("compiled", "cpu")
    assert "the job runs on the CPU: a GPU cannot be used" in found.warning
    with pytest.raises(NoGpuError, match="a GPU cannot be used"):
        choose_plan(problem, weights, "gpu")
    cupy.array = np.array
    found = choose_plan(problem, weights, "gpu")
    assert (found.plan.name, found.device) == ("reference", "gpu")
    assert "the CUDA plan cannot run here, the slower reference plan does: ZeroDivisionError" in found.warning
