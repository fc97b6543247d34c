"""Early stopping, time limits and callbacks of fit in this process, and their arguments."""

import csv
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from small import X, Y, fit, stack

import gradwire as gw
from gradwire._stopping import keep_policy
from gradwire_proto.v1.spec_pb2 import EarlyStopping as EarlyStoppingMessage
from gradwire_proto.v1.spec_pb2 import KeepPolicy


@pytest.fixture(autouse=True)
def _reference_plan(monkeypatch):
    """The reference plan needs no compiler."""
    monkeypatch.setenv("GRADWIRE_PLAN", "reference")


FIRST_IS_BEST = {"monitor": "train.loss", "min_delta": 100.0}


def weights_after(epochs):
    model = stack(4, 8, 3)
    fit(model, epochs=epochs)
    return model(X)


def test_fit_stops_early_and_restores_the_best_weights():
    model = stack(4, 8, 3)
    history = fit(model, epochs=50, early_stopping=gw.EarlyStopping(**FIRST_IS_BEST, patience=3))
    assert (len(history), history.stop_reason, history.model_epoch) == (4, "EARLY_STOPPING", 1)
    assert np.array_equal(model(X), weights_after(1))


def test_fit_keeps_the_last_weights_if_the_best_are_not_restored():
    model = stack(4, 8, 3)
    fit(model, epochs=50, early_stopping=gw.EarlyStopping(**FIRST_IS_BEST, patience=3, restore_best=False))
    assert np.array_equal(model(X), weights_after(4))


def test_fit_stops_after_the_epoch_that_reaches_the_time_limit():
    history = fit(epochs=10**6, max_seconds=0.05)
    assert history.stop_reason == "TIME_LIMIT"
    seconds = [epoch.seconds for epoch in history]
    assert sum(seconds[:-1]) < 0.05 <= sum(seconds)


@pytest.mark.parametrize("stopping", [None, gw.EarlyStopping(**FIRST_IS_BEST, patience=50)])
def test_a_callback_that_returns_false_stops_fit(stopping):
    seen = []
    model = stack(4, 8, 3)

    def first(epoch):
        seen.append(epoch.epoch)
        return epoch.epoch < 5

    others = []
    history = fit(model, epochs=50, early_stopping=stopping, on_epoch=[first, others.append])
    assert seen == [1, 2, 3, 4, 5] == [epoch.epoch for epoch in others]
    assert (len(history), history.stop_reason) == (5, "REQUESTED")
    assert np.array_equal(model(X), weights_after(1 if stopping else 5))


def test_an_interrupted_fit_has_the_best_weights(capsys):
    def interrupt(epoch):
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    model = stack(4, 8, 3)
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=9, early_stopping=gw.EarlyStopping(**FIRST_IS_BEST, patience=9), on_epoch=interrupt)
    assert np.array_equal(model(X), weights_after(1))
    assert "epoch 1 of 9" in capsys.readouterr().err


def test_keep_has_no_effect_in_this_process():
    with pytest.warns(UserWarning, match="keep="):
        fit(keep="best")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patience": 0}, "early_stopping.patience: must be at least 1, got 0"),
        ({"patience": 2.5}, "patience: must be a whole number, got 2.5"),
        ({"patience": 2**31}, "patience: must be at most 2147483647"),
        ({"patience": True}, "patience"),
        ({"min_delta": -1.0}, "min_delta: must be a finite number of at least 0"),
        ({"min_delta": math.nan}, "min_delta"),
        ({"min_delta": "1"}, "min_delta"),
        ({"monitor": ""}, "monitor"),
        ({"monitor": None}, "monitor"),
        ({"restore_best": "yes"}, "restore_best"),
        ({"restore_best": 1}, "restore_best"),
        ({"patience": 2**31}, "patience"),
        ({"patience": "5"}, "patience"),
        ({"min_delta": math.inf}, "min_delta"),
        ({"min_delta": True}, "min_delta"),
    ],
)
def test_invalid_values_of_early_stopping_are_refused(arguments, message):
    with pytest.raises(gw.InvalidArgumentError, match=message):
        gw.EarlyStopping(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"early_stopping": 5}, r"early_stopping: must be gw.EarlyStopping\(...\) or None"),
        (
            {"early_stopping": gw.EarlyStopping(patience=1)},
            "There is no test set. It has running_loss, train.loss, train.accuracy",
        ),
        ({"early_stopping": gw.EarlyStopping("train.loss", patience=4)}, "at most epochs, which is 3, got 4"),
        ({"early_stopping": gw.EarlyStopping("loss", patience=1)}, "'loss', which this job does not have"),
        ({"max_seconds": 0}, "max_seconds: must be a number of seconds, 0 < max_seconds <= 1e"),
        ({"max_seconds": -1}, "max_seconds"),
        ({"max_seconds": math.nan}, "max_seconds"),
        ({"max_seconds": 1e10}, "max_seconds"),
        ({"max_seconds": True}, "max_seconds"),
        ({"max_seconds": "60"}, "max_seconds"),
        ({"keep": "every:0"}, 'keep: must be "last", "best" or "every:N"'),
        ({"keep": "all"}, "keep"),
        ({"keep": None}, "keep"),
        ({"keep": "every:1.5"}, "keep"),
        ({"on_epoch": 5}, "on_epoch: must be a function of an epoch"),
        ({"on_epoch": gw.callbacks.CSVLogger}, "on_epoch"),
        ({"start_epoch": 3}, "start_epoch: needs a server"),
    ],
)
def test_invalid_arguments_of_fit_are_refused(arguments, message):
    with pytest.raises(gw.InvalidArgumentError, match=message):
        fit(**arguments)


def test_a_regression_has_other_monitors():
    target = X.sum(axis=1)
    model = stack(4, 8, 1)
    arguments = {"loss": gw.MSE(), "optimizer": gw.SGD(model, lr=0.01)}
    stopping = gw.EarlyStopping("train.accuracy", patience=1)
    with pytest.raises(
        gw.InvalidArgumentError, match=r"running_loss, train.loss, train.mean_absolute_error, train.r2$"
    ):
        fit(model, (X, target), **arguments, early_stopping=stopping)
    assert len(fit(model, (X, target), **arguments, early_stopping=gw.EarlyStopping("train.r2", patience=2))) <= 3


def test_early_stopping_is_converted_to_a_message():
    defaults = gw.EarlyStopping().message()
    assert defaults == EarlyStoppingMessage(monitor="test.loss", patience=5, restore_best=True)
    largest = gw.EarlyStopping("train.f1", np.int64(2**31 - 1), np.float32(0.5), np.False_).message()
    assert largest == EarlyStoppingMessage(monitor="train.f1", patience=2**31 - 1, min_delta=0.5)
    assert gw.EarlyStopping(patience=1, min_delta=0).message().patience == 1


@pytest.mark.parametrize(
    ("keep", "policy"),
    [
        ("last", KeepPolicy()),
        ("best", KeepPolicy(best=True)),
        ("every:1", KeepPolicy(every=1)),
        ("every:120", KeepPolicy(every=120)),
        ("every:999999999", KeepPolicy(every=999_999_999)),
        ("every:1000000000", None),
        ("every:012", None),
        ("every:", None),
        (12, None),
    ],
)
def test_keep_is_converted_to_a_policy(keep, policy):
    assert keep_policy(keep) == policy


def test_the_csv_logger_writes_the_columns_of_the_history(tmp_path):
    path = tmp_path / "log.csv"
    history = fit(test=(X, Y), epochs=4, evaluate_every=2, on_epoch=gw.callbacks.CSVLogger(path))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = history.to_dict()
    assert list(rows[0]) == list(columns)
    for name, values in columns.items():
        assert [float(row[name]) if row[name] else None for row in rows] == values


def test_the_csv_logger_writes_each_epoch_at_once(tmp_path):
    path = tmp_path / "log.csv"
    lines = []
    logger = gw.callbacks.CSVLogger(path)
    fit(on_epoch=[logger, lambda epoch: lines.append(len(path.read_text().splitlines()))])
    assert lines == [2, 3, 4]
    with pytest.raises(gw.FileError, match="Use a new one for each run"):
        fit(on_epoch=logger)
    with pytest.raises(gw.FileError, match="cannot write"):
        gw.callbacks.CSVLogger(tmp_path / "missing" / "log.csv")


class Calls:
    """Records the calls of all its attributes, and returns itself."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return None if name == "active_run" else self

        return call


@pytest.mark.parametrize(
    ("name", "module", "started", "logged", "ended"),
    [
        ("TensorBoard", "tensorboardX", "SummaryWriter", "add_scalar", "close"),
        ("MLflow", "mlflow", "start_run", "log_metrics", "end_run"),
        ("WandB", "wandb", "init", "log", "finish"),
        ("Trackio", "trackio", "init", "log", "finish"),
    ],
)
def test_a_tracker_gets_each_epoch(monkeypatch, name, module, started, logged, ended):
    fake = Calls()
    monkeypatch.setitem(sys.modules, module, fake)
    arguments = {"folder": "runs/1"} if name == "TensorBoard" else {"project": "digits"}
    history = fit(epochs=2, on_epoch=getattr(gw.callbacks, name)(**arguments))
    names = [each[0] for each in fake.calls if each[0] not in ("active_run", "flush")]
    assert names[0] == started
    assert names[-1] == ended
    assert set(names[1:-1]) == {logged}
    logs = [each for each in fake.calls if each[0] == logged]
    if name == "TensorBoard":
        values = {(args[0], args[2]): args[1] for _, args, _ in logs}
    else:
        values = {(key, kwargs["step"]): value for _, args, kwargs in logs for key, value in args[0].items()}
    for epoch in history:
        assert values["running_loss", epoch.epoch] == epoch.running_loss
        assert values["train/loss", epoch.epoch] == epoch.train.loss
        assert values["train/accuracy", epoch.epoch] == epoch.train.accuracy
        assert values["seconds", epoch.epoch] == epoch.seconds


def test_mlflow_logs_to_the_active_run_and_does_not_end_it(monkeypatch):
    fake = Calls()
    monkeypatch.setitem(
        sys.modules, "mlflow", SimpleNamespace(active_run=lambda: "a run", log_metrics=fake.log_metrics)
    )
    fit(epochs=2, on_epoch=gw.callbacks.MLflow())
    assert [each[0] for each in fake.calls] == ["log_metrics", "log_metrics"]


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    fit(on_epoch=gw.callbacks.TensorBoard(tmp_path / "run"))
    (file,) = (tmp_path / "run").iterdir()
    assert b"train/accuracy" in file.read_bytes()


@pytest.mark.parametrize("name", ["TensorBoard", "MLflow", "WandB", "Trackio"])
def test_a_missing_tracker_is_named_with_what_to_install(monkeypatch, name):
    module = {"TensorBoard": "tensorboardX", "MLflow": "mlflow", "WandB": "wandb", "Trackio": "trackio"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"{name} needs {module}. Install it with: pip install 'gradwire\[{name.lower()}\]'"
    ):
        getattr(gw.callbacks, name)(*(["runs"] if name == "TensorBoard" else []))


def test_callbacks_are_closed_if_training_fails():
    class Closing:
        closed = 0

        def __call__(self, epoch):
            pass

        def close(self):
            self.closed += 1

    closing = Closing()
    model = stack(4, 8, 3)
    with pytest.raises(gw.JobFailedError):
        fit(model, optimizer=gw.SGD(model, lr=1e30), on_epoch=closing)
    assert closing.closed == 1
