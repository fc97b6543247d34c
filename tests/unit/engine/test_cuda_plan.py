"""The CUDA plan: its kernels compile for every kind of GPU, and it agrees with the reference on a stand-in for one.

Where there is a GPU, it has to agree with the reference there too.
"""

import ctypes
import importlib.util
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_cupy import FakeCupy
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.backend import gpu_module
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import NoGpuError, Problem, ReferencePlan, agreement, choose_plan
from gradwire_engine.plans.cuda import availability as readiness
from gradwire_engine.plans.cuda import kernels
from gradwire_engine.plans.cuda import persistent_kernel as narrow
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.persistent_kernel import Layout, fits
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


GPU, _ = gpu_module()


@pytest.fixture(params=["stand-in"] if GPU is None else ["stand-in", "GPU"])
def any_cupy(request, cupy):
    return cupy if request.param == "stand-in" else GPU


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.delenv("GRADWIRE_PLAN", raising=False)
    readiness.cuda_obstacle.cache_clear()


@pytest.mark.parametrize(
    ("source", "names"), [(kernels.step_source, kernels.NAMES), (kernels.narrow_source, ("narrow_steps",))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ["compute_75", "compute_80", "compute_90", "compute_100"])
def test_the_kernels_compile_for_every_kind_of_gpu(source, names, dtype, architecture):
    """By NVIDIA's own compiler, which needs no GPU, with the options that CuPy gives it."""
    spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    if spec is None:
        pytest.skip("NVRTC is not there: pip install nvidia-cuda-nvrtc-cu12")
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("lib/libnvrtc.so.*"))))
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source(dtype).encode(), b"kernels.cu", 0, None, None)
    given = (f"--gpu-architecture={architecture}", "--std=c++14", "-ftz=true", "--device-as-default-execution-space")
    options = (ctypes.c_char_p * len(given))(*map(str.encode, given))
    failed = library.nvrtcCompileProgram(program, len(given), options)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert not failed, log.value.decode()
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, ptx)
    assert all(f".entry {name}(" in ptx.value.decode() for name in names)


def examples(rng, rows, features, outputs, classification, kind):
    inputs = (rng.random((rows, features)) * 5).astype(kind)
    targets = rng.integers(0, outputs, rows) if classification else rng.random((rows, outputs))
    return Examples.of(inputs, targets, classification)


def cuda_plan(cupy, problem, weights, way="narrow"):
    device = Device(cupy, problem.dtype, tf32=False)
    if way == "graphs":
        device.run_together = lambda _blocks, _shared_bytes: False
    return CudaPlan(problem, weights, device)


def problem_of(stack, loss, dtype=FLOAT64):
    network = Network.from_stack(stack)
    weights = (np.random.default_rng(1).standard_normal(network.size) * 0.2).astype(dtype)
    return Problem(network, loss, dtype), weights


def both(cupy, stack, loss, set_, dtype=FLOAT64, epochs=3, batch_size=8, way="narrow"):
    """What the two plans come to."""
    problem, weights = problem_of(stack, loss, dtype)
    config = TrainingConfig(epochs, batch_size, 0.05, True, 3)
    results = []
    for plan in (cuda_plan(cupy, problem, weights, way), ReferencePlan(problem, weights)):
        told = list(train(plan, config, set_, set_))
        results.append((plan.weights(), told, plan.predict(set_.inputs.astype(dtype))))
    return results


@needs_compiler
@pytest.mark.parametrize("way", ["graphs", "narrow"])
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
def test_it_comes_to_what_the_reference_plan_does(any_cupy, stack, loss, classification, kind, rows, way):
    outputs = next(part for part in reversed(stack) if part)[1]
    set_ = examples(np.random.default_rng(0), rows, 5, outputs, classification, kind)
    (weights, told, predicted), (expected, expected_told, expected_predicted) = both(
        any_cupy, stack, loss, set_, way=way
    )
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(predicted, expected_predicted, rtol=0, atol=1e-10)
    for mine, reference in zip(told, expected_told, strict=True):
        assert mine.running_loss == pytest.approx(reference.running_loss, abs=1e-10)
        for name, value in vars(reference.train).items():
            assert vars(mine.train)[name] == pytest.approx(value, abs=1e-9), name


@needs_compiler
@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), min_size=2, max_size=6),
    batch_size=st.integers(1, 40),
    classification=st.booleans(),
    relu_last=st.booleans(),
)
def test_narrow_stacks_of_any_shape_come_to_what_the_reference_plan_does(
    folder, widths, batch_size, classification, relu_last
):
    stack = [part for pair in pairwise(widths) for part in (pair, None)]
    loss = CrossEntropy() if classification else MSE()
    set_ = examples(np.random.default_rng(0), 41, widths[0], widths[-1], classification, "float64")
    cupy = FakeCupy(folder)
    (weights, *_), (expected, *_) = both(
        cupy, stack if relu_last else stack[:-1], loss, set_, epochs=1, batch_size=batch_size
    )
    assert cupy.together
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("batch_size", [1, 10, 128])
def test_the_stack_of_the_benchmark_fits_into_one_launch(any_cupy, batch_size):
    problem, weights = problem_of([(784, 128), None, (128, 32), None, (32, 10)], CrossEntropy(), FLOAT32)
    set_ = examples(np.random.default_rng(0), 3 * batch_size, 784, 10, True, "uint8")
    results = []
    for plan in (cuda_plan(any_cupy, problem, weights), ReferencePlan(problem, weights)):
        plan.train(plan.place(set_), np.arange(set_.rows)[::-1], batch_size, 0.001, 0.0)
        results.append(plan.weights())
    np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
    if any_cupy is not GPU:
        assert any_cupy.together == ["narrow_steps"]


@needs_compiler
@pytest.mark.parametrize("stack", [[(9, 30), None, (30, 20), None, (20, 3)], [(9, 6)]])
def test_a_narrow_stack_comes_to_the_same_bits_in_whatever_order_its_threads_run(folder, stack, monkeypatch):
    """A wait that is missing in the kernel would let one of them read what another has yet to write."""
    set_ = examples(np.random.default_rng(0), 100, 9, stack[-1][1], True, "float32")
    results = []
    for seed, threads in [(0, 512), (1, 512), (2, 96), (3, 96), (4, 96), (5, 96)]:
        monkeypatch.setattr(kernels, "THREADS", threads)
        cupy = FakeCupy(folder, seed=seed)
        (weights, told, _), _ = both(cupy, stack, CrossEntropy(), set_, FLOAT32, batch_size=33)
        results.append((weights.tobytes(), [epoch.running_loss for epoch in told]))
    assert results == results[:1] * 6


@needs_compiler
def test_what_is_not_narrow_or_not_small_is_left_to_graphs(cupy, folder):
    h100 = Device(cupy, FLOAT32, tf32=False)

    def is_narrow(*widths, batch=32, device=h100):
        return fits(Network.from_stack(list(pairwise(widths))), batch, 4, device)

    assert is_narrow(784, 128, 32, 10)
    assert is_narrow(784, 128, 32, 10, batch=128)
    assert not is_narrow(784, 128, 32, 10, batch=129)
    assert not is_narrow(784, 129, 32, 10)
    assert not is_narrow(784, 128, 32, 130)
    assert not is_narrow(100_000, 128, 10)
    assert not is_narrow(784, 128, 128, 128, 128, 128, 10)
    bytes_ = Layout.of(Network.from_stack([(784, 128)]), 32, 4).shared_bytes
    for name, enough in [
        ("MaxSharedMemoryPerBlockOptin", bytes_),
        ("MultiProcessorCount", 32),
        ("CooperativeLaunch", 1),
    ]:
        other = FakeCupy(folder)
        other.attributes[name] = enough
        assert is_narrow(784, 128, device=Device(other, FLOAT32, tf32=False))
        other.attributes[name] -= 1
        assert not is_narrow(784, 128, device=Device(other, FLOAT32, tf32=False))
    other.attributes |= {"MultiProcessorCount": 16, "CooperativeLaunch": 1}
    other.blocks_each = 2
    assert is_narrow(784, 128, device=Device(other, FLOAT32, tf32=False))


@needs_compiler
@pytest.mark.parametrize("way", ["graphs", "narrow"])
def test_slices_of_an_epoch_change_no_bit_not_even_of_the_loss(any_cupy, way):
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    problem, weights = problem_of([(5, 4)], CrossEntropy())
    results = []
    for cuts in ([], [8 * 7], [8, 8 * 30, 8 * 39]):
        plan = cuda_plan(any_cupy, problem, weights, way)
        placed = plan.place(set_)
        lost = 0.0
        for rows in np.split(np.arange(set_.rows), cuts):
            lost = plan.train(placed, rows, 8, 0.05, lost)
        results.append((plan.weights().tobytes(), lost))
    assert results == results[:1] * 3


@needs_compiler
def test_a_run_of_very_many_steps_is_several_launches(cupy, monkeypatch):
    monkeypatch.setattr(narrow, "_STEPS_PER_LAUNCH", 15)
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    problem, weights = problem_of([(5, 4)], CrossEntropy())
    results = []
    for plan in (cuda_plan(cupy, problem, weights), ReferencePlan(problem, weights)):
        plan.train(plan.place(set_), np.arange(set_.rows), 8, 0.05, 0.0)
        results.append(plan.weights())
    assert len(cupy.together) == 3
    np.testing.assert_allclose(*results, rtol=0, atol=1e-10)


@needs_compiler
def test_many_steps_run_from_one_graph(cupy):
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    both(cupy, [(5, 4)], CrossEntropy(), set_, epochs=4, way="graphs")
    steps = 4 * 41
    assert 0 < cupy.replays < steps / 2


@needs_compiler
@pytest.mark.parametrize("way", ["graphs", "narrow"])
def test_a_set_that_does_not_fit_comes_in_slabs_to_the_same_bits(cupy, folder, way):
    set_ = examples(np.random.default_rng(0), 3000, 5, 4, True, "float64")
    stack = [(5, 3), None, (3, 4)]
    (expected, told, _), _ = both(cupy, stack, CrossEntropy(), set_, way=way)
    small = FakeCupy(folder)
    plan = cuda_plan(small, *problem_of(stack, CrossEntropy()), way)
    plan._make_room(3000, 3000)
    small.memory = small.used + 40_000  # For some 750 rows.
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
