"""fit without a server: results, invalid arguments, and interruption."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from small import X, Y, fit, stack

import gradwire as gw
from gradwire import MSE, SGD, CrossEntropy, InvalidArgumentError, JobFailedError, Linear, Module, ReLU, Sequential
from gradwire._job_request import make_job_request
from gradwire._options import TrainingOptions
from gradwire_engine.spec.tensors import tensor_ref


def test_a_local_fit_trains_in_place_and_returns_its_history():
    model = stack(4, 8, 3)
    fit(model, epochs=1)  # From here on, the weights are views into one vector.
    parameters = model.parameters()
    arrays = [parameter.data for parameter in parameters]
    before = [array.copy() for array in arrays]
    history = fit(model, test=(X, Y))
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert history.epochs[-1].test.loss == history.epochs[-1].train.loss
    assert history.plan.device == "cpu"
    assert history.job is None
    for parameter, array, old in zip(parameters, arrays, before, strict=True):
        assert parameter.data is array, "the array that the user may hold is the one that was trained"
        assert not np.array_equal(array, old)
    assert all(array.base is arrays[0].base for array in arrays), "they are views into one vector"


def test_what_is_sent_does_not_change_with_the_model():
    """A program may go on with its model while an upload or a job in another thread uses the weights."""
    model = stack(4, 3)
    fit(model, epochs=1)  # From here on, the weights are views into one vector.
    options = TrainingOptions(loss=CrossEntropy(), optimizer=SGD(model))
    request = make_job_request(model, (X, Y), None, options)
    model["0"].W.data[...] = 0
    reference = request.spec.initial_weights
    assert tensor_ref(request.tensors[reference.sha256]) == reference


def test_a_second_fit_continues_from_the_weights_of_the_first():
    model = stack(4, 8, 3)
    first = fit(model, epochs=20).epochs[-1].train.loss
    assert fit(model, epochs=20).epochs[0].train.loss < first


def test_the_same_calls_give_bit_identical_results():
    assert fit().epochs[-1].train == fit().epochs[-1].train


def test_deferred_layers_are_drawn_from_the_seed_of_the_job():
    losses = []
    for seed in (1, 1, 2):
        model = Sequential(Linear(8), ReLU(), Linear(3))
        losses.append(fit(model, seed=seed).epochs[-1].train.loss)
        assert model["0"].W.data.shape == (8, 4)
    assert losses[0] == losses[1] != losses[2]


def test_seed_none_draws_a_seed_that_the_history_reports():
    first, second = fit(seed=None), fit(seed=None)
    assert first.seed != second.seed
    assert fit(seed=first.seed).epochs[-1].train == first.epochs[-1].train


def test_float64_is_trained_on_request_and_kept_in_the_model():
    model = stack(4, 8, 3)
    fit(model, dtype="float64")
    assert model["0"].W.data.dtype == np.float64


@pytest.mark.parametrize("targets", [X[:, 0], X[:, :1], Y * 10])
def test_regression_with_one_output_reports_errors_instead_of_accuracy(targets):
    last = fit(stack(4, 8, 1), (X, targets), loss=MSE()).epochs[-1].train
    assert last.accuracy is None
    assert last.mean_absolute_error > 0
    assert last.r2 is not None


def test_evaluate_every_skips_the_epochs_between():
    epochs = fit(epochs=5, evaluate_every=3).epochs
    assert [epoch.train is not None for epoch in epochs] == [False, False, True, False, True]


def test_a_column_of_class_indices_is_accepted_as_targets():
    assert fit(train=(X, Y.reshape(-1, 1))).epochs[-1].train == fit().epochs[-1].train


def test_optimizers_of_all_parameters_of_the_model_are_accepted():
    model = stack(4, 8, 3)
    fit(model, optimizer=SGD(model.parameters(), lr=0.1))


def test_data_that_is_used_twice_is_one_tensor():
    model = stack(4, 8, 3)
    options = gw.TrainingOptions(loss=CrossEntropy(), optimizer=SGD(model))
    assert len(make_job_request(model, (X, Y), (X, Y), options).tensors) == 3  # The tensors are X, Y and the weights.


@pytest.mark.parametrize(("fraction", "rows"), [(0.2, 6), (0.5, 15), (0.9, 27), (0.35, 11), (1 / 30, 1), (29 / 30, 29)])
def test_validation_split_evaluates_on_the_last_rows_and_trains_on_the_others(fraction, rows):
    split = fit(validation_split=fraction).epochs
    by_hand = fit(train=(X[:-rows], Y[:-rows]), test=(X[-rows:], Y[-rows:])).epochs
    assert [(epoch.train, epoch.test) for epoch in split] == [(epoch.train, epoch.test) for epoch in by_hand]


@pytest.mark.parametrize("fraction", [1e-12, 0.99])
def test_a_validation_split_that_leaves_a_set_empty_is_refused(fraction):
    with pytest.raises(
        InvalidArgumentError, match=r"validation_split: .* of 30 rows leaves .* Both must be at least 1"
    ):
        fit(validation_split=fraction)


def test_a_validation_split_of_one_row_is_named_in_the_singular():
    with pytest.raises(InvalidArgumentError, match=r"0\.2 of 1 row leaves"):
        fit(train=(X[:1], Y[:1]), validation_split=0.2)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan"), "a fifth"])
def test_a_validation_split_must_be_a_fraction(fraction):
    with pytest.raises(InvalidArgumentError, match="validation_split: must be a number between 0 and 1"):
        fit(validation_split=fraction)


def test_validation_split_and_test_exclude_each_other():
    with pytest.raises(InvalidArgumentError, match="cannot be used together with test="):
        fit(validation_split=0.2, test=(X, Y))


FRAME = pd.DataFrame(X, columns=list("abcd"))


class NotAStack(Module):
    def __init__(self):
        super().__init__()
        self.fc = Linear(4, 3)

    def forward(self, x):
        return self.fc(x) * 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"train": (X, Y[:-1])}, "train.targets"),
        ({"train": (X, Y + 1)}, "train.targets"),
        ({"train": (X, Y - 1)}, "train.targets"),
        ({"train": (X, np.where(Y, np.nan, 0.0))}, "train.targets"),
        ({"train": (np.where(X > 0.99, np.nan, X), Y)}, "train.inputs"),
        ({"train": (np.full_like(X, 1e300, dtype=np.float64), Y)}, "train.inputs"),
        ({"train": (X[:0], Y[:0])}, "train.inputs"),
        ({"train": (X[:, 0], Y)}, "train.inputs"),
        ({"train": (X.reshape(-1, 2, 2), Y)}, "train.inputs"),
        ({"train": (X[:, :3], Y)}, "model.layers[0].linear.in_features"),
        ({"train": (np.array([["a"]]), Y)}, "train.inputs"),
        ({"train": (np.array([[object()]]), Y)}, "train.inputs"),
        ({"train": ([[1], [2, 3]], Y)}, "train.inputs"),
        ({"train": (X + 1j, Y)}, "train.inputs"),
        ({"train": X}, "train"),
        ({"test": (X[:, :3], Y)}, "test.inputs"),
        ({"test": (X, Y + 7)}, "test.targets"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"epochs": 2**40}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "8"}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": "word"}, "dtype"),
        ({"device": "tpu"}, "device"),
        ({"loss": "mse"}, "loss"),
        ({"loss": MSE(), "train": (X, X[:, 0])}, "train.targets"),
        ({"loss": CrossEntropy(), "train": (X, X[:, 0])}, "train.targets"),
        ({"model": stack(4, 8, 1)}, "loss.cross_entropy"),
        ({"model": Sequential(Linear(4, 8), Linear(9, 3))}, "model.layers[1].linear.in_features"),
        ({"optimizer": SGD(Linear(1, 1))}, "optimizer"),
        ({"optimizer": 0.1}, "optimizer"),
    ],
)
def test_invalid_input_is_refused_with_the_path_of_its_field(changes, field):
    with np.errstate(all="ignore"), pytest.raises(InvalidArgumentError) as caught:
        fit(**changes)
    assert f"job.spec.{field}" in [violation.field for violation in caught.value.violations]
    assert "job.spec" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (X, Y[:-1])}, "train targets: "),
        ({"train": (X[:0], Y[:0])}, "train inputs: is empty"),
        ({"train": X}, r"train: must be a pair \(inputs, targets\), got ndarray"),
        ({"train": (X, Y, Y)}, r"train: must be a pair \(inputs, targets\), got tuple of 3"),
        ({"train": (X * np.float64(1e300), Y)}, r"train inputs: row 0 has .*, which is too large for float32"),
        ({"train": (X, Y + 5), "loss": MSE()}, r"indices 0\.\.2 .*\. Targets of a regression have shape \(rows, 3\)"),
        ({"train": (X, Y[:, None] == Y), "loss": CrossEntropy()}, "train targets: has 30 columns"),
        ({"train": (FRAME, Y), "test": (FRAME[list("bacd")], Y)}, "test inputs: has the columns .* in another order"),
        ({"epochs": 0}, "epochs: must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size: must be at least 1, got -1"),
        ({"epochs": 2**40}, "epochs: must be at most 2147483647"),
        ({"device": "tpu"}, 'device: must be "auto" or "cpu" or "gpu", got \'tpu\''),
        ({"model": Sequential(fc1=Linear(4, 8), fc2=Linear(9, 3))}, "in_features of layer 'fc2': "),
        ({"model": stack(4, 8, 1)}, "loss: "),
    ],
)
def test_errors_name_the_argument_of_the_call(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        fit(**changes)


def test_a_learning_rate_that_is_not_a_number_is_refused():
    model = stack(4, 3)
    optimizer = SGD(model)
    optimizer.lr = "a"
    with pytest.raises(InvalidArgumentError, match="lr: must be a number, got 'a'"):
        fit(model=model, optimizer=optimizer)


@pytest.mark.filterwarnings("error")
def test_a_learning_rate_that_is_too_large_for_the_dtype_only_makes_the_loss_infinite():
    model = stack(4, 3)
    with pytest.raises(JobFailedError, match="loss"):
        fit(model=model, optimizer=SGD(model, lr=1e300))


def test_all_invalid_options_are_named_together():
    with pytest.raises(InvalidArgumentError, match=r"epochs: .*; batch_size: .*; device: "):
        fit(epochs=0, batch_size=0, device="tpu")


def test_an_invalid_learning_rate_is_refused():
    model = stack(4, 3)
    optimizer = SGD(model)
    optimizer.lr = float("nan")
    with pytest.raises(InvalidArgumentError, match="lr: "):
        fit(model, optimizer=optimizer)


def test_a_user_error_has_a_short_traceback():
    with pytest.raises(InvalidArgumentError) as caught:
        fit(train=(X, Y + 1))
    frames = [entry.name for entry in caught.traceback]
    assert frames[-1] == "fit"
    assert len(frames) == 3  # The frames are this test, the helper in small.py, and gw.fit.
    assert caught.value.__cause__ is None


def test_the_error_for_an_untraceable_model_names_the_operation_the_class_and_the_line():
    with pytest.raises(gw.TraceError, match=r"(?s)NotAStack\.forward.*line \d+.*\*") as caught:
        fit(NotAStack())
    assert isinstance(caught.value, gw.GradwireError)
    assert isinstance(caught.value, TypeError)
    assert "remote" not in str(caught.value)


def test_the_error_for_a_diverging_loss_names_the_epoch_and_a_remedy_and_contains_the_history():
    model = stack(4, 8, 1)
    with pytest.raises(JobFailedError, match=r"epoch \d+") as caught:
        fit(model, (X, X[:, 0]), loss=MSE(), optimizer=SGD(model, lr=30.0), epochs=50)
    assert caught.value.reason == "LOSS_NOT_FINITE"
    assert caught.value.job is None
    assert len(caught.value.history) >= 1


def test_a_missing_gpu_is_reported():
    with pytest.raises(gw.FailedPreconditionError, match="no GPU") as caught:
        fit(device="gpu")
    assert caught.value.reason == "NO_GPU"


@pytest.mark.parametrize("arguments", [{"resume_from": "a-job"}, {"initial_model": "a-model"}])
def test_options_that_need_a_server_are_refused_without_one(arguments):
    with pytest.raises(InvalidArgumentError, match="needs a server"):
        fit(**arguments)


def test_a_name_without_a_server_is_a_warning():
    with pytest.warns(UserWarning, match="name= has no effect"):
        fit(name="x")
    with pytest.warns(UserWarning, match="labels= has no effect"):
        fit(labels={"team": "vision"})


def test_ctrl_c_leaves_the_weights_of_the_last_complete_epoch_in_the_model():
    script = """
import os, signal
import numpy as np
import gradwire as gw
from gradwire_engine import training

signal.signal(signal.SIGINT, signal.default_int_handler)
X, Y = np.random.default_rng(0).random((30, 4)), np.arange(30) % 3

def fitted(epochs):
    gw.seed(0)
    model = gw.Sequential(gw.Linear(4, 3))
    try:
        gw.fit(model, (X, Y), loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=epochs, at="local")
    except KeyboardInterrupt:
        print("interrupted")
    return model["0"].W.data

whole = fitted(epochs=5)
train_epoch, calls = training._train_epoch, []

def interrupted_in_the_sixth(*arguments):
    loss = train_epoch(*arguments)
    calls.append(loss)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGINT)
    return loss

training._train_epoch = interrupted_in_the_sixth
print(np.array_equal(fitted(epochs=10**6), whole))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert run.stdout == "interrupted\nTrue\n", run.stdout + run.stderr
    assert "The model has the weights of epoch 5 of 1000000." in run.stderr


def test_a_shape_in_an_error_is_written_as_in_numpy():
    with pytest.raises(InvalidArgumentError, match=r"train inputs: .* got \(30,\)"):
        fit(train=(X[:, 0], Y))
