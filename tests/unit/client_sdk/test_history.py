"""History as a sequence of epochs, as columns, as a table and as a plot."""

import math
import sys

import pandas as pd
import pytest
from epochs import epoch, epochs
from small import X, Y, fit, stack

import gradwire as gw


def test_a_history_is_a_sequence_of_its_epochs():
    history = fit()
    assert len(history) == 3
    assert history[0] is history.epochs[0]
    assert history[-1] is history.epochs[-1]
    assert list(history) == history.epochs


def test_its_repr_is_short_and_says_how_good_the_model_is():
    history = fit(test=(X, Y))
    assert repr(history) == f"History(3 epochs, test accuracy {history[-1].test.accuracy:.4g})"
    assert repr(fit(epochs=1)).startswith("History(1 epoch, train accuracy 0.")
    assert "train R2" in repr(fit(stack(4, 1), (X, X[:, 0]), loss=gw.MSE()))
    assert repr(gw.History()) == "History(no epochs)"


def test_to_dict_returns_columns_of_equal_length():
    history = fit(test=(X, Y), epochs=5, evaluate_every=2)
    columns = history.to_dict()
    assert list(columns)[:3] == ["epoch", "running_loss", "train_loss"]
    assert {len(column) for column in columns.values()} == {5}
    assert columns["epoch"] == [1, 2, 3, 4, 5]
    assert columns["test_accuracy"] == [
        None,
        history[1].test.accuracy,
        None,
        history[3].test.accuracy,
        history[4].test.accuracy,
    ]
    assert "train_r2" not in columns
    assert "test_loss" not in fit().to_dict()


def test_to_pandas_returns_one_row_for_each_epoch():
    frame = fit(epochs=4, evaluate_every=2).to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame["train_loss"].isna().tolist() == [True, False, True, False]


@pytest.mark.parametrize(("module", "method"), [("pandas", "to_pandas"), ("matplotlib.figure", "plot")])
def test_a_missing_library_is_named_with_its_installation(monkeypatch, module, method):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install"):
        getattr(fit(), method)()


def test_plot_returns_a_figure_and_saves_it_on_request(tmp_path):
    history = fit(test=(X, Y))
    figure = history.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["train", "test"]
    history.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    history.plot(tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").read_text().startswith("<?xml")
    with pytest.raises(gw.FileError, match=r"the folder .*nowhere does not exist"):
        history.plot(tmp_path / "nowhere" / "curve.png")


def test_the_best_epoch_has_the_lowest_loss_on_the_test_set_or_else_on_the_training_set():
    assert gw.History(epochs=epochs([0.5, 0.1, 0.2], [0.5, 0.4, 0.3])).best.epoch == 3
    assert gw.History(epochs=epochs([0.5, 0.1, 0.2])).best.epoch == 2
    assert gw.History(epochs=epochs([0.5, 0.4], [0.5, math.nan])).best.epoch == 1
    assert gw.History(epochs=[epoch(1, None), epoch(2, 3.0), epoch(3, None)]).best.epoch == 2
    assert gw.History(epochs=[epoch(1, None)]).best.epoch == 1
    assert gw.History().best is None


def test_several_histories_are_compared_in_one_plot(tmp_path):
    first, second = fit(test=(X, Y)), fit(epochs=5)
    figure = gw.plot([first, second], tmp_path / "runs.png")
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["run 1 train", "run 1 test", "run 2 train"]
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert colors[0] == colors[1] != colors[2]
    assert (tmp_path / "runs.png").exists()
    named = gw.plot({"slow": first, "fast": second})
    assert named.axes[0].lines[0].get_label() == "slow train"
    same = [gw.History(job="x", epochs=first.epochs), gw.History(job="x", epochs=first.epochs)]
    assert gw.plot(same).axes[0].lines[2].get_label() == "x (2) train"
    assert [line.get_label() for line in gw.plot(first).axes[0].lines] == ["train", "test"]
    with pytest.raises(gw.InvalidArgumentError, match=r"as fit\(\) returns them, got int"):
        gw.plot([1])


def test_one_epoch_and_nan_are_plotted():
    history = gw.History(epochs=epochs([1.0, math.nan, 0.5]))
    assert len(history.plot().axes[0].lines) == 1
    assert len(gw.History(epochs=epochs([1.0])).plot().axes[0].lines) == 1


def test_a_plot_in_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(gw.FileError, match="nowhere does not exist"):
        fit().plot(tmp_path / "nowhere" / "curve.png")


def test_nothing_to_plot_is_an_error():
    with pytest.raises(ValueError, match="no epoch was evaluated"):
        gw.History().plot()
    with pytest.raises(ValueError, match="no epoch was evaluated"):
        gw.plot([])
