"""The training options of fit and jobs.submit, without training."""

import numpy as np
import pytest
from small import stack

import gradwire as gw
from gradwire._numbers import checked_whole
from gradwire._options import TrainingOptions

MODEL = stack(4, 3)
VALID = {"loss": gw.MSE(), "optimizer": gw.SGD(MODEL)}


def test_the_defaults_are_valid():
    options = TrainingOptions(**VALID)
    assert (options.epochs, options.batch_size, options.shuffle, options.seed, options.evaluate_every) == (
        10, 64, True, 0, 1,
    )  # fmt: skip
    assert (options.device, options.dtype, options.keep) == ("auto", None, "last")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", [1, np.int64(7), 2**31 - 1]),
        ("batch_size", [1, 2**31 - 1]),
        ("evaluate_every", [1, 2**31 - 1]),
        ("seed", [None, 0, 2**64 - 1, np.uint64(5)]),
        ("validation_split", [1e-9, 0.5, 0.999, np.float32(0.5)]),
        ("max_seconds", [1e-9, 1, 1e9, np.float32(0.5)]),
        ("dtype", ["float32", "float64", np.float64, np.dtype(np.float32)]),
        ("device", ["auto", "cpu", "gpu"]),
        ("classes", [["a"], ("a", "b"), np.array(["a", "b"])]),
        ("keep", ["last", "best", "every:3"]),
    ],
)
def test_values_at_their_bounds_are_accepted(name, values):
    for value in values:
        TrainingOptions(**VALID, **{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("loss", [gw.MSE, None, "mse"]),
        ("optimizer", [gw.SGD, None, MODEL]),
        ("epochs", [0, -1, 2**31, True, 1.0, "1", None]),
        ("batch_size", [0, 2**31, 1.5, False]),
        ("evaluate_every", [0, -1, 2**31]),
        ("seed", [-1, 2**64, 0.5, True]),
        ("validation_split", [0, 0.0, 1, 1.0, -0.1, float("nan"), "0.5", 1j]),
        ("max_seconds", [0, 0.0, -1, 1.1e9, float("nan"), float("inf"), True, "9"]),
        ("dtype", ["float16", "int32", int, "what", 5]),
        ("device", ["cuda", "", None]),
        ("classes", [[], "ab", b"ab", {"a": 1}, {"a"}, 5, ["a", 5]]),
        ("keep", ["all", "every:0", None]),
        ("early_stopping", [5, gw.EarlyStopping]),
    ],
)
def test_values_beyond_their_bounds_are_refused_by_name(name, values):
    for value in values:
        with pytest.raises(gw.InvalidArgumentError, match=f"^{name}: must ") as caught:
            TrainingOptions(**(VALID | {name: value}))
        assert len(caught.value.violations) == 1


def test_a_whole_number_has_bounds():
    assert checked_whole("after", np.int64(3), 3, 5) == checked_whole("after", 3, 0) == 3
    assert checked_whole("after", 2**31 - 1, 0) == 2**31 - 1
    for value, message in ((2, "at least 3"), (6, "at most 5"), (3.5, "a whole number"), (True, "a whole number")):
        with pytest.raises(gw.InvalidArgumentError, match=f"after: must be {message}"):
            checked_whole("after", value, 3, 5)
    with pytest.raises(gw.InvalidArgumentError, match="at most"):
        checked_whole("after", 2**31, 0)
