"""The CUDA plan: its kernels compile for several GPU architectures, and it agrees with the reference plan.

Every test runs on a simulated GPU. Tests with `any_cupy` also run on a real GPU, if there is one. This file needs only
NumPy and pytest, so it also runs on a GPU machine where gradwire is not installed (see benchmarks/gpu.py).
"""

import ctypes
import importlib.util
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fake_cupy import FakeCupy

from gradwire_engine import MSE, CrossEntropy
from gradwire_engine.backend import gpu_module
from gradwire_engine.class_counts import count_classes
from gradwire_engine.examples import Examples
from gradwire_engine.network import Network
from gradwire_engine.plans import NoGpuError, Problem, ReferencePlan, agreement, choose_plan
from gradwire_engine.plans.codes import SOURCE_TYPES
from gradwire_engine.plans.cuda import availability, kernels, persistent_kernel
from gradwire_engine.plans.cuda.device import Device
from gradwire_engine.plans.cuda.persistent_kernel import Layout, suits
from gradwire_engine.plans.cuda.plan import CudaPlan
from gradwire_engine.training import TrainingConfig, train

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
WAYS = ("graphs", "persistent")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing: apt-get install g++")
GPU, _ = gpu_module()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def cupy(folder):
    return FakeCupy(folder)


@pytest.fixture(params=["stand-in"] if GPU is None else ["stand-in", "GPU"])
def any_cupy(request, cupy):
    return cupy if request.param == "stand-in" else GPU


@pytest.fixture(autouse=True)
def _fresh_availability(monkeypatch):
    monkeypatch.delenv("GRADWIRE_PLAN", raising=False)
    availability._check.cache_clear()


def nvrtc_library():
    """Return the path of the newest NVRTC library in the installed NVIDIA packages, or None."""
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else spec.submodule_search_locations
    found = [path for folder in folders for path in Path(folder).glob("*/lib/libnvrtc.so.*")]
    return max(found, key=lambda path: path.name, default=None)


@pytest.mark.skipif(nvrtc_library() is None, reason="NVRTC is missing: pip install nvidia-cuda-nvrtc-cu12")
@pytest.mark.parametrize(
    ("source", "names"),
    [(kernels.step_source, kernels.STEP_KERNELS), (kernels.persistent_source, (kernels.PERSISTENT_KERNEL,))],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("architecture", ["compute_75", "compute_80", "compute_90", "compute_100"])
def test_the_kernels_compile_for_every_architecture(source, names, dtype, architecture):
    """NVRTC does not need a GPU. The options are those that CuPy passes, and one that skips slow optimizations."""
    library = ctypes.CDLL(str(nvrtc_library()))
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source(dtype).encode(), b"kernels.cu", 0, None, None)
    given = (f"--gpu-architecture={architecture}", "--std=c++14", "-ftz=true", "--device-as-default-execution-space")
    given += ("--Ofast-compile=max",)
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


@pytest.mark.parametrize(
    ("source", "kernel", "arguments"),
    [
        (kernels.step_source, "gather", kernels.GatherArguments),
        (kernels.step_source, "losses", kernels.LossesArguments),
        (kernels.step_source, "count_classes", kernels.MetricsArguments),
        (kernels.step_source, "sum_errors", kernels.MetricsArguments),
        (kernels.persistent_source, "persistent_steps", kernels.PersistentArguments),
    ],
)
def test_arguments_have_the_names_and_the_order_of_the_parameters(source, kernel, arguments):
    parameters = re.search(rf"{kernel}\((const |REAL\*)(.*?)\)", source("float32"), re.DOTALL).group()
    assert tuple(re.findall(r"(\w+)(?=[,)])", parameters)) == arguments._fields


def examples(rng, rows, features, outputs, classification, dtype):
    inputs = (rng.random((rows, features)) * 5).astype(dtype)
    targets = rng.integers(0, outputs, rows) if classification else rng.random((rows, outputs))
    return Examples.of(inputs, targets, classification)


def cuda_plan(cupy, problem, weights, way="persistent"):
    device = Device(cupy, problem.dtype, tf32=False)
    if way == "graphs":
        device.fits_cooperative = lambda _blocks, _shared_bytes: False
    return CudaPlan(problem, weights, device)


def problem_of(stack, loss, dtype=FLOAT64):
    network = Network.from_stack(stack)
    weights = (np.random.default_rng(1).standard_normal(network.size) * 0.2).astype(dtype)
    return Problem(network, loss, dtype), weights


class Case(NamedTuple):
    """A problem to train, and the data to train it on."""

    stack: list
    loss: object
    examples: Examples
    dtype: np.dtype = FLOAT64
    epochs: int = 3
    batch_size: int = 8


def results_of_both(cupy, case, way="persistent"):
    """Return the weights, epochs and predictions of the CUDA plan and of the reference plan."""
    problem, weights = problem_of(case.stack, case.loss, case.dtype)
    config = TrainingConfig(case.epochs, case.batch_size, 0.05, True, 3)
    results = []
    for plan in (cuda_plan(cupy, problem, weights, way), ReferencePlan(problem, weights)):
        epochs = list(train(plan, config, case.examples, case.examples))
        results.append((plan.weights(), epochs, plan.predict(case.examples.inputs.astype(case.dtype))))
    return results


@needs_compiler
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 7, 8, 300])
@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "uint32", "float16"])
@pytest.mark.parametrize(
    ("stack", "loss", "classification"),
    [
        ([(5, 9), None, (9, 4)], CrossEntropy(), True),
        ([None, (5, 3)], CrossEntropy(), True),
        ([(5, 4), (4, 6), None, (6, 1)], MSE(), False),
        ([(5, 6), None, (6, 2), None], MSE(), False),
    ],
)
def test_the_cuda_plan_agrees_with_the_reference_plan(any_cupy, stack, loss, classification, dtype, rows, way):
    outputs = next(part for part in reversed(stack) if part)[1]
    case = Case(stack, loss, examples(np.random.default_rng(0), rows, 5, outputs, classification, dtype))
    (weights, epochs, predicted), (expected, expected_epochs, expected_predicted) = results_of_both(any_cupy, case, way)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(predicted, expected_predicted, rtol=0, atol=1e-10)
    for epoch, expected_epoch in zip(epochs, expected_epochs, strict=True):
        assert epoch.running_loss == pytest.approx(expected_epoch.running_loss, abs=1e-10)
        for name, value in vars(expected_epoch.train).items():
            assert vars(epoch.train)[name] == pytest.approx(value, abs=1e-9), name


@needs_compiler
@pytest.mark.parametrize("seed", range(15))
def test_the_persistent_kernel_agrees_with_the_reference_plan_for_random_stacks(any_cupy, seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 25, rng.integers(2, 7)).tolist()
    stack = [part for pair in pairwise(widths) for part in (pair, None)]
    classification = widths[-1] > 1 and bool(rng.integers(2))
    case = Case(
        stack if rng.integers(2) else stack[:-1],
        CrossEntropy() if classification else MSE(),
        examples(rng, 41, widths[0], widths[-1], classification, "float64"),
        epochs=1,
        batch_size=int(rng.integers(1, 41)),
    )
    (weights, *_), (expected, *_) = results_of_both(any_cupy, case)
    np.testing.assert_allclose(weights, expected, rtol=1e-10, atol=1e-10)
    if any_cupy is not GPU:
        assert any_cupy.cooperative_launches


@needs_compiler
@pytest.mark.parametrize("batch_size", [1, 10, 128])
def test_the_network_of_the_benchmark_trains_in_one_launch(any_cupy, batch_size):
    problem, weights = problem_of([(784, 128), None, (128, 32), None, (32, 10)], CrossEntropy(), FLOAT32)
    set_ = examples(np.random.default_rng(0), 3 * batch_size, 784, 10, True, "uint8")
    results = []
    for plan in (cuda_plan(any_cupy, problem, weights), ReferencePlan(problem, weights)):
        plan.train(plan.place(set_), np.arange(set_.rows)[::-1], batch_size, 0.001, 0.0)
        results.append(plan.weights())
    np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
    if any_cupy is not GPU:
        assert any_cupy.cooperative_launches == ["persistent_steps"]


@needs_compiler
@pytest.mark.parametrize("stack", [[(9, 30), None, (30, 20), None, (20, 3)], [(9, 6)]])
def test_results_do_not_depend_on_the_order_in_which_threads_run(folder, stack, monkeypatch):
    """Without a barrier, a thread could read a value before another thread has written it."""
    set_ = examples(np.random.default_rng(0), 100, 9, stack[-1][1], True, "float32")
    results = []
    for seed, threads in [(0, 512), (1, 512), (2, 96), (3, 96), (4, 96), (5, 96)]:
        monkeypatch.setattr(kernels, "PERSISTENT_THREADS", threads)
        cupy = FakeCupy(folder, seed=seed)
        case = Case(stack, CrossEntropy(), set_, FLOAT32, batch_size=33)
        (weights, epochs, _), _ = results_of_both(cupy, case)
        results.append((weights.tobytes(), [epoch.running_loss for epoch in epochs]))
    assert results == results[:1] * 6


@needs_compiler
def test_only_narrow_networks_and_small_batches_suit_the_persistent_kernel(cupy):
    h100 = Device(cupy, FLOAT32, tf32=False)

    def suitable(*widths, batch=32):
        return suits(Network.from_stack(list(pairwise(widths))), batch, 4, h100)

    assert suitable(784, 128, 32, 10)
    assert suitable(784, 128, 32, 10, batch=128)
    assert not suitable(784, 128, 32, 10, batch=129)
    assert not suitable(784, 129, 32, 10)
    assert not suitable(784, 128, 32, 130)
    assert not suitable(100_000, 128, 10)
    assert not suitable(784, 128, 128, 128, 128, 128, 10)


@needs_compiler
def test_the_persistent_kernel_needs_a_gpu_that_runs_all_its_blocks_at_once(folder):
    network = Network.from_stack([(784, 128)])

    def suitable(cupy):
        return suits(network, 32, 4, Device(cupy, FLOAT32, tf32=False))

    for name, enough in [
        ("MaxSharedMemoryPerBlockOptin", Layout.of(network, 32, 4).shared_bytes),
        ("MultiProcessorCount", 32),
        ("CooperativeLaunch", 1),
    ]:
        cupy = FakeCupy(folder)
        cupy.attributes[name] = enough
        assert suitable(cupy)
        cupy.attributes[name] -= 1
        assert not suitable(cupy)
    cupy.attributes |= {"MultiProcessorCount": 16, "CooperativeLaunch": 1}
    cupy.blocks_per_multiprocessor = 2
    assert suitable(cupy)


@needs_compiler
@pytest.mark.parametrize("way", WAYS)
def test_an_epoch_in_slices_gives_bit_identical_weights_and_loss(any_cupy, way):
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    problem, weights = problem_of([(5, 4)], CrossEntropy())
    results = []
    for cuts in ([], [8 * 7], [8, 8 * 30, 8 * 39]):
        plan = cuda_plan(any_cupy, problem, weights, way)
        placed = plan.place(set_)
        loss_sum = 0.0
        for rows in np.split(np.arange(set_.rows), cuts):
            loss_sum = plan.train(placed, rows, 8, 0.05, loss_sum)
        results.append((plan.weights().tobytes(), loss_sum))
    assert results == results[:1] * 3


@needs_compiler
def test_very_many_steps_are_divided_into_several_launches(cupy, monkeypatch):
    monkeypatch.setattr(persistent_kernel, "_STEPS_PER_LAUNCH", 15)
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    problem, weights = problem_of([(5, 4)], CrossEntropy())
    results = []
    for plan in (cuda_plan(cupy, problem, weights), ReferencePlan(problem, weights)):
        plan.train(plan.place(set_), np.arange(set_.rows), 8, 0.05, 0.0)
        results.append(plan.weights())
    assert len(cupy.cooperative_launches) == 3
    np.testing.assert_allclose(*results, rtol=0, atol=1e-10)


@needs_compiler
def test_one_graph_contains_many_steps(cupy):
    set_ = examples(np.random.default_rng(0), 8 * 40 + 3, 5, 4, True, "float32")
    results_of_both(cupy, Case([(5, 4)], CrossEntropy(), set_, epochs=4), "graphs")
    steps = 4 * 41
    assert 0 < cupy.replays < steps / 2


@needs_compiler
@pytest.mark.parametrize("way", WAYS)
def test_a_set_larger_than_gpu_memory_gives_bit_identical_weights(cupy, folder, way):
    set_ = examples(np.random.default_rng(0), 3000, 5, 4, True, "float64")
    stack = [(5, 3), None, (3, 4)]
    (expected, expected_epochs, _), _ = results_of_both(cupy, Case(stack, CrossEntropy(), set_), way)
    small = FakeCupy(folder)
    plan = cuda_plan(small, *problem_of(stack, CrossEntropy()), way)
    plan._allocate(3000, 3000)
    small.memory = small.used + 40_000  # This is enough memory for about 750 rows.
    config = TrainingConfig(3, 8, 0.05, True, 3)
    epochs = list(train(plan, config, set_, None))
    assert not plan.place(set_).resident
    assert np.array_equal(plan.weights(), expected)
    expected_losses = [epoch.train.loss for epoch in expected_epochs]
    assert [epoch.train.loss for epoch in epochs] == pytest.approx(expected_losses, abs=1e-12)


@pytest.mark.parametrize("classes", [7, 101])
def test_the_gpu_counts_the_same_classes(any_cupy, classes):
    network = Network.from_stack([(5, 8), None, (8, classes)])
    vector = np.random.default_rng(0).normal(size=network.size)
    set_ = examples(np.random.default_rng(1), 300, 5, classes, True, "float64")
    expected = count_classes(network, vector, set_)
    found = count_classes(network, any_cupy.asarray(vector), set_)
    for name, counts in vars(expected).items():
        assert np.array_equal(getattr(found, name), counts), name


@needs_compiler
def test_an_error_says_what_does_not_fit_into_the_memory(cupy):
    problem = Problem(Network.from_stack([(100, 100)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    cupy.memory = 10_000
    with pytest.raises(MemoryError, match="the weights need"):
        CudaPlan(problem, weights, Device(cupy, FLOAT32, tf32=False))
    cupy.memory = 200_000
    plan = CudaPlan(problem, weights, Device(cupy, FLOAT32, tf32=False))
    with pytest.raises(MemoryError, match=r"batches of 1000 rows need .* MiB of GPU memory"):
        plan.place(examples(np.random.default_rng(0), 1000, 100, 100, False, "float32"))


@needs_compiler
def test_a_job_gets_the_cuda_plan_and_tf32_only_on_request(cupy, monkeypatch):
    use_as_gpu(cupy, monkeypatch)
    problem = Problem(Network.from_stack([(3, 2)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    chosen = choose_plan(problem, weights, "auto")
    assert (chosen.plan.name, chosen.device, chosen.warning) == ("cuda", "gpu", None)
    assert set(cupy.math_modes) == {0}
    monkeypatch.setenv("GRADWIRE_TF32", "1")
    assert choose_plan(problem, weights, "gpu").reason == "this process has a GPU; GRADWIRE_TF32 is 1"
    assert cupy.math_modes[-1] == 3


@pytest.mark.parametrize("device", ["auto", "gpu"])
@pytest.mark.parametrize(
    ("forced", "message"),
    [
        ("fastest", "must be one of reference, compiled, cuda, got 'fastest'"),
        ("compiled", "runs on the CPU, but this job runs on a GPU"),
        ("cuda", "cannot run here: ZeroDivisionError"),
    ],
)
def test_a_forced_plan_that_cannot_run_on_the_gpu_is_an_error(cupy, monkeypatch, device, forced, message):
    use_as_gpu(cupy, monkeypatch)
    monkeypatch.setattr(agreement, "check", lambda _make: 1 / 0)
    monkeypatch.setenv("GRADWIRE_PLAN", forced)
    problem = Problem(Network.from_stack([(3, 2)]), MSE(), FLOAT32)
    with pytest.raises(ValueError, match=message):
        choose_plan(problem, np.zeros(problem.network.size, np.float32), device)


@needs_compiler
def test_if_the_gpu_fails_the_job_gets_the_next_best_plan_and_a_warning(cupy, monkeypatch):
    use_as_gpu(cupy, monkeypatch)
    problem = Problem(Network.from_stack([(3, 2)]), MSE(), FLOAT32)
    weights = np.zeros(problem.network.size, np.float32)
    monkeypatch.setattr("gradwire_engine.plans.compiled_availability.unavailable_reason", lambda: "it is switched off")
    monkeypatch.setattr(agreement, "check", lambda _make: 1 / 0)
    chosen = choose_plan(problem, weights, "gpu")
    assert (chosen.plan.name, chosen.device) == ("reference", "gpu")
    assert "the CUDA plan cannot run here" in chosen.warning
    assert "ZeroDivisionError" in chosen.warning
    monkeypatch.setattr(cupy, "array", lambda *_: 1 / 0)
    chosen = choose_plan(problem, weights, "auto")
    assert (chosen.plan.name, chosen.device) == ("reference", "cpu")
    assert "the job runs on the CPU: a GPU cannot be used" in chosen.warning
    with pytest.raises(NoGpuError, match="a GPU cannot be used"):
        choose_plan(problem, weights, "gpu")


@pytest.mark.parametrize(("loss", "classification"), [(CrossEntropy(), True), (MSE(), False)])
def test_the_reference_plan_gives_the_same_results_on_a_gpu(any_cupy, loss, classification):
    problem, weights = problem_of([(5, 9), None, (9, 4)], loss)
    set_ = examples(np.random.default_rng(0), 60, 5, 4, classification, "uint8")
    config = TrainingConfig(2, 8, 0.05, True, 3)
    results = []
    for plan in (ReferencePlan(problem, weights, any_cupy), ReferencePlan(problem, weights)):
        epochs = list(train(plan, config, set_, set_))
        predicted = plan.predict(set_.inputs.astype(np.float64)).ravel()
        results.append(np.concatenate([plan.weights(), predicted, [epochs[-1].train.loss]]))
        assert (epochs[-1].train.accuracy is not None) == classification
    np.testing.assert_allclose(*results, rtol=0, atol=1e-10)


def use_as_gpu(cupy, monkeypatch):
    for module in ("gradwire_engine.plans", "gradwire_engine.plans.cuda.availability"):
        monkeypatch.setattr(f"{module}.gpu_module", lambda: (cupy, "a GPU"))


def test_the_kernels_know_the_size_of_every_type_of_data():
    c_types = {"float": ctypes.c_float, "double": ctypes.c_double, "char": ctypes.c_char, "short": ctypes.c_short}
    c_types |= {"int": ctypes.c_int, "long long": ctypes.c_longlong}
    for dtype, c_type in SOURCE_TYPES.items():
        name = c_type.removeprefix("unsigned ").removeprefix("signed ")
        assert ctypes.sizeof(c_types[name]) == np.dtype(dtype).itemsize
        assert c_type.startswith("unsigned") == dtype.startswith("u")
