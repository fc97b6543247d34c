"""The SDK without a server: what it takes, what it refuses, local fits, files, displays, streams."""

import asyncio
import io
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import gradwire as gw
from gradwire import MSE, SGD, CrossEntropy, InvalidArgumentError, JobFailedError, Linear, Module, ReLU, Sequential
from gradwire._arrays import to_array
from gradwire._blocking import Portal, Stream
from gradwire._display import Display
from gradwire._job_request import make_submission
from gradwire.cli.data_files import DataFileError, read_data, read_inputs

X = np.random.default_rng(0).random((30, 4)).astype(np.float32)
Y = np.arange(30) % 3


def stack(*widths):
    gw.seed(0)
    layers = [Linear(a, b) for a, b in pairwise(widths)]
    return Sequential(*[module for layer in layers for module in (layer, ReLU())][:-1])


def fit(model=None, train=(X, Y), **changes):
    model = model or stack(4, 8, 3)
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.1), "epochs": 3, "batch_size": 8, "at": "local"}
    return gw.fit(model, train, **(arguments | changes))


def test_a_local_fit_trains_in_place_and_returns_its_history():
    model = stack(4, 8, 3)
    array, before = model["0"].W.data, model["0"].W.data.copy()
    history = fit(model, test=(X, Y))
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.epochs[-1].test.loss == history.epochs[-1].train.loss
    assert history.plan.device == "cpu"
    assert model["0"].W.data is not before
    assert not np.array_equal(model["0"].W.data, before)
    assert np.shares_memory(model["0"].W.data, model["2"].b.data.base)
    assert array.shape == before.shape


def test_fit_after_fit_goes_on_training():
    model = stack(4, 8, 3)
    first = fit(model, epochs=20).epochs[-1].train.loss
    assert fit(model, epochs=20).epochs[0].train.loss < first


def test_the_same_calls_give_the_same_bits():
    assert fit().epochs[-1].train == fit().epochs[-1].train


def test_deferred_layers_are_drawn_from_the_jobs_seed():
    losses = []
    for seed in (1, 1, 2):
        model = Sequential(Linear(8), ReLU(), Linear(3))
        losses.append(fit(model, seed=seed).epochs[-1].train.loss)
        assert model["0"].W.data.shape == (8, 4)
    assert losses[0] == losses[1] != losses[2]


def test_float64_is_trained_on_request_and_lands_as_float64():
    model = stack(4, 8, 3)
    fit(model, dtype="float64")
    assert model["0"].W.data.dtype == np.float64


@pytest.mark.parametrize("targets", [X[:, 0], X[:, :1]])
def test_regression_with_one_output_reports_errors(targets):
    last = fit(stack(4, 8, 1), (X, targets), loss=MSE()).epochs[-1].train
    assert last.accuracy is None
    assert last.mean_absolute_error > 0
    assert last.r2 is not None


def test_evaluate_every_makes_evaluation_rarer():
    assert [epoch.train is not None for epoch in fit(epochs=5, evaluate_every=3).epochs] == [
        False,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "value",
    [
        X.tolist(),
        pd.DataFrame(X),
        X.astype(np.float64),
        np.asfortranarray(X),
        X[::1],
        X.astype(np.float16).astype("f4"),
    ],
)
def test_anything_that_numpy_can_view_is_accepted(value):
    assert np.allclose(to_array(value, "x", np.dtype(np.float32)), X, atol=1e-3)


def test_torch_like_tensors_are_detached_first():
    class Tensor:
        def detach(self):
            return X

    assert to_array(Tensor(), "x", np.dtype(np.float32)) is X


def test_numbers_keep_their_kind():
    float32 = np.dtype(np.float32)
    assert to_array([True, False], "y", float32).dtype == np.uint8
    assert to_array(np.array([1, 2], np.uint64), "y", float32).dtype == np.int64
    assert to_array(np.array([1, 2], np.uint8), "y", float32).dtype == np.uint8
    assert to_array(pd.Series([0, 1]), "y", float32).dtype == np.int64


class NotOurs(Module):
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
        ({"model": Sequential(ReLU())}, "model.layers"),
        ({"model": Sequential(Linear(4, 8), Linear(9, 3))}, "model.layers[1].linear.in_features"),
        ({"optimizer": SGD(Linear(1, 1))}, "optimizer"),
        ({"optimizer": SGD([])}, "optimizer"),
        ({"optimizer": 0.1}, "optimizer"),
    ],
)
def test_bad_input_is_refused_at_once_by_the_name_of_its_field(changes, field):
    with np.errstate(all="ignore"), pytest.raises(InvalidArgumentError) as caught:
        fit(**changes)
    assert f"job.spec.{field}" in [violation.field for violation in caught.value.violations]


def test_a_learning_rate_that_is_changed_to_nonsense_is_refused():
    model = stack(4, 3)
    optimizer = SGD(model)
    optimizer.lr = float("nan")
    with pytest.raises(InvalidArgumentError, match="learning_rate"):
        fit(model, optimizer=optimizer)


def test_a_model_that_cannot_travel_names_operation_class_and_line():
    with pytest.raises(gw.TraceError, match=r"NotOurs\.forward, line \d+ .*the operation \*"):
        fit(NotOurs())


def test_a_loss_that_explodes_says_epoch_lr_and_what_to_try():
    model = stack(4, 8, 1)
    with pytest.raises(JobFailedError, match=r"in epoch \d+ with lr=1e\+20; try a smaller lr") as caught:
        fit(model, (X, X[:, 0]), loss=MSE(), optimizer=SGD(model, lr=1e20), epochs=50)
    assert caught.value.reason == "LOSS_NOT_FINITE"


def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(gw.FailedPreconditionError, match="no GPU here"):
        fit(device="gpu")


def test_optimizers_of_all_the_models_parameters_are_accepted():
    model = stack(4, 8, 3)
    fit(model, optimizer=SGD(model.parameters(), lr=0.1))


def test_the_same_data_twice_is_one_tensor():
    model = stack(4, 8, 3)
    submission = make_submission(model, (X, Y), test=(X, Y), loss=CrossEntropy(), optimizer=SGD(model))
    assert len(submission.tensors) == 3  # x, y, and the model's weights


def test_a_model_survives_its_file(tmp_path):
    model = Sequential(fc1=Linear(4, 5), relu=ReLU(), fc2=Linear(5, 3))
    loaded = gw.load_model(gw.save(model, tmp_path / "m.safetensors"))
    assert [name for name, _ in loaded.named_modules()] == ["fc1", "relu", "fc2"]
    assert np.array_equal(loaded(X), model(X))


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(gw.GradwireError, match="cannot read"):
        gw.load_model(tmp_path / "junk.safetensors")
    with pytest.raises(gw.GradwireError, match="cannot read"):
        gw.load_model(tmp_path / "absent.safetensors")
    with pytest.raises(InvalidArgumentError, match="has no weights yet"):
        gw.save(Sequential(Linear(3)), tmp_path / "m.safetensors")


def test_a_history_draws_its_curve(tmp_path):
    history = fit(test=(X, Y))
    assert history.plot(tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert history.plot(tmp_path / "curve.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="no evaluated epoch"):
        gw.History().plot(tmp_path / "none.png")


def shown(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Display(shown=True, console=console) as display:
        display.uploaded(10, 100)
        for epoch in fit(test=(X, Y)).epochs:
            display.epoch(epoch)
    return console.file.getvalue()


def test_epochs_are_plain_lines_without_a_terminal_and_a_table_with_one():
    assert shown(terminal=False).count("\n") == 3
    assert "epoch 3  train loss" in shown(terminal=False)
    assert "train accuracy" in shown(terminal=True)
    assert "uploading" in shown(terminal=True)


def test_npz_safetensors_and_csv_files_are_read(tmp_path):
    from safetensors.numpy import save_file

    np.savez(tmp_path / "d.npz", x_train=X.reshape(30, 2, 2), y_train=Y, x_test=X, y_test=Y)
    save_file({"x_train": X, "y_train": Y}, str(tmp_path / "d.safetensors"))
    pd.DataFrame(X, columns=list("abcd")).assign(label=Y).to_csv(tmp_path / "d.csv", index=False)
    npz, tensors, table = (
        read_data(tmp_path / name, target)
        for name, target in (("d.npz", None), ("d.safetensors", None), ("d.csv", "label"))
    )
    assert npz.train[0].shape == (30, 4)
    assert npz.test[1].shape == (30,)
    assert tensors.test is None
    assert np.allclose(table.train[0], X)
    assert np.array_equal(table.train[1], Y)
    assert table.train[1].dtype == np.int64
    assert read_inputs(tmp_path / "d.npz").shape == (30, 4)


@pytest.mark.parametrize(
    ("name", "content", "target", "message"),
    [
        ("d.csv", "a,b\n1,2\n3,x\n", "b", "line 3, column b: 'x' is not a number"),
        ("d.csv", "a,b\n1,2\n3\n", "b", "line 3: has 1 cells"),
        ("d.csv", "a,b\n1,2\n", "c", "must name a column .* one of a, b; got 'c'"),
        ("d.csv", "a,b\n1,2\n", None, "none was given"),
        ("d.npz", "junk", None, "cannot read"),
        ("d.npz", "junk", "b", "--target is for .csv"),
        ("d.txt", "", None, "must end in"),
    ],
)
def test_data_files_that_cannot_be_used_say_why(tmp_path, name, content, target, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataFileError, match=message):
        read_data(tmp_path / name, target)


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=Y)
    with pytest.raises(DataFileError, match="allow_pickle=False"):
        read_data(tmp_path / "evil.npz", None)


def test_a_stream_is_for_both_kinds_of_loops():
    async def numbers():
        for batch in ([0, 1], [], [2]):
            yield batch

    portal = Portal()
    assert list(Stream(numbers(), portal)) == [0, 1, 2]

    async def collect():
        return [number async for number in Stream(numbers(), portal)]

    assert asyncio.run(collect()) == [0, 1, 2]
    portal.close()
    portal.close()


def test_clients_come_and_go_without_a_word():
    script = """
import contextlib, threading
import gradwire as gw

def come_and_go():
    with contextlib.suppress(gw.UnavailableError), gw.Client("127.0.0.1:9") as client:
        client.jobs()

threads = [threading.Thread(target=come_and_go) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
come_and_go()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_closed_client_says_so():
    client = gw.Client("127.0.0.1:9")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.jobs()


def test_a_client_without_an_address_says_what_to_set():
    with pytest.raises(InvalidArgumentError, match="GRADWIRE_ADDRESS"):
        gw.Client()
