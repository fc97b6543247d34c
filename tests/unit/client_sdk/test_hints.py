"""The suggestions in the closing summary, which has none for healthy jobs."""

import math

import numpy as np
import pytest
from epochs import epoch, epochs
from small import X, Y, fit, stack

import gradwire as gw
from gradwire import _hints
from gradwire._curve import Curve


def hints(*losses, **metrics):
    return gw.History(epochs=epochs(*losses, **metrics)).hints()


def test_a_loss_that_grows_from_the_start_needs_a_smaller_learning_rate():
    assert "smaller learning rate" in hints([1.0, 1.5, 2.5, 4.0])[0]


def test_a_loss_that_hardly_changes_needs_a_larger_learning_rate():
    assert "larger learning rate" in hints([2.3, 2.2999, 2.2998, 2.2997, 2.2996], accuracy=0.1)[0]
    assert "larger learning rate" in hints([1.0] * 5, r2=0.0)[0]


def test_a_test_loss_that_leaves_the_train_loss_is_overfitting():
    train = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05]
    test = [1.0, 0.8, 0.7, 0.9, 1.0, 1.1, 1.2]
    (hint,) = hints(train, test, accuracy=0.9)
    assert hint.startswith("After epoch 3, the loss falls on the training set and grows on the test set.")


@pytest.mark.parametrize(
    ("losses", "metrics"),
    [
        (([1.0, 0.5, 0.3, 0.2, 0.15],), {}),
        (([0.001] * 8,), {"accuracy": 0.99}),  # It has converged.
        (([1.0, 1.1, 0.9],), {}),  # Noise at the start.
        (([1.0, 5.0],), {}),  # Two epochs are not enough for a hint.
        (([1.0],), {}),
        (([],), {}),
        (([math.nan] * 6,), {"accuracy": 0.1}),
        (([1.0, 0.5, 0.2, 0.1, 0.05, 0.04], [1.0, 0.6, 0.5, 0.52, 0.51, 0.53]), {}),  # Noise on the test set.
    ],
)
def test_there_is_no_hint_about_a_healthy_job(losses, metrics):
    assert hints(*losses, **metrics) == []


def test_there_is_no_hint_about_a_job_that_continues_another():
    resumed = [each for each in epochs([1.0] * 20, accuracy=0.1) if each.epoch > 10]
    assert gw.History(epochs=resumed).hints() == []


GROWS, STANDS, PARTS = "The loss grows from the start", "The loss hardly changes", "the loss falls on the training"


def kind_of(running, train=(), test=(), last=None, first_epoch=1):
    """Return the part of the hint about three curves that says what is wrong, or None if there is no hint."""
    curves = (Curve(enumerate(losses, first_epoch)) for losses in (running, train, test))
    found = _hints.hints(*curves, last)
    assert len(found) <= 1
    return next((part for part in (GROWS, STANDS, PARTS) if found and part in found[0]), None)


@pytest.mark.parametrize(
    ("losses", "hint"),
    [
        ([1.0, 1.6], None),
        ([1.0, 1.2, 1.5], None),
        ([1.0, 1.2, 1.51], GROWS),
        ([1.0, 1.0, 1.51], None),  # It rises in one of two steps.
        ([1.0, 3.0, 2.0, 1.9], None),  # In one of three.
        ([1.0, 3.0, 2.0, 4.0], GROWS),
        ([1.0, 0.99, 2.0, 3.0, 4.0], None),
        ([1000.0, 1000.0, 1000.0, 995.1], None),
        ([1000.0, 1000.0, 995.1, 1000.0, 1000.0], STANDS),
        ([1000.0, 1000.0, 995.0, 1000.0, 1000.0], None),
        ([1000.0, 1000.0, 1000.0, 1000.0, 1004.9], STANDS),
    ],
)
def test_the_limits_of_the_hints_about_the_learning_rate(losses, hint):
    last = epoch(len(losses), 1.0, accuracy=0.1)
    assert kind_of(losses, last=last) == hint
    assert kind_of(losses, last=last, first_epoch=2) is None


@pytest.mark.parametrize(
    ("metrics", "hint"),
    [
        ({"accuracy": 0.8}, STANDS),
        ({"accuracy": 0.81}, None),
        ({"r2": 0.2}, STANDS),
        ({"r2": 0.21}, None),
        ({"r2": -3.0}, STANDS),
        ({}, None),
    ],
)
def test_a_solved_problem_needs_no_hint(metrics, hint):
    assert kind_of([1.0] * 5, last=epoch(5, 1.0, **metrics)) == hint
    assert kind_of([1.0] * 5, last=epoch(5, None, 1.0, **metrics)) is None
    assert kind_of([1.0] * 5) is None


@pytest.mark.parametrize(
    ("train", "test", "hint"),
    [
        ([1.0, 0.5, 0.44, 0.44, 0.44], [1.0, 0.5, 0.61, 0.61, 0.61], PARTS),
        ([1.0, 0.5, 0.44, 0.44, 0.44], [1.0, 0.5, 0.61, 0.61, 0.6], None),
        ([1.0, 0.5, 0.44, 0.44, 0.44], [1.0, 0.5, 0.6, 0.61, 0.61], None),
        ([1.0, 0.5, 0.44, 0.44, 0.44, 0.44], [1.0, 0.5, 0.6, 0.61, 0.61, 0.61], PARTS),
        ([1.0, 0.5, 0.44, 0.44, 0.45], [1.0, 0.5, 0.61, 0.61, 0.61], None),
        ([1.0, 0.5, 0.4, 0.4, 0.35], [1.0, 0.7, 0.5, 0.61, 0.61], None),
        ([1.0, 0.9, 0.8, 0.7], [0.5, 0.7, 0.7, 0.7], None),
        ([1.0, 0.9, 0.8, 0.7, 0.6], [0.5, 0.7, 0.7, 0.7, 0.7], PARTS),
        ([1.0, 0.5, 0.1, 0.1, 0.1], [math.nan, 0.5, 0.7, 0.7, 0.7], PARTS),
        ([1.0, 0.5, 0.4, 0.4, 0.4], [1.0, 0.5, 0.7, 0.7, 0.7, 0.7], None),
        ([1.0] * 5, [math.nan] * 5, None),
    ],
)
def test_the_limits_of_the_hint_about_overfitting(train, test, hint):
    running = [1.0, 0.5, 0.4]
    assert kind_of(running, train, test) == hint
    if hint:
        best = 1 + test.index(min(loss for loss in test if not math.isnan(loss)))
        curves = [Curve(enumerate(losses, 1)) for losses in (running, train, test)]
        assert _hints.hints(*curves, None)[0].startswith(f"After epoch {best},")


def test_real_runs_get_the_hint_that_fits():
    assert (
        fit(epochs=6, optimizer=gw.SGD(model := stack(4, 8, 3), lr=1e-6), model=model)
        .hints()[0]
        .startswith("The loss hardly changes")
    )
    targets = X @ np.array([1.0, -2.0, 3.0, 0.5])
    model = stack(4, 1)
    diverging = fit(model, (X, targets), loss=gw.MSE(), optimizer=gw.SGD(model, lr=0.9), epochs=5)
    assert diverging.hints()[0].startswith("The loss grows from the start")


@pytest.mark.parametrize("seed", range(3))
def test_real_healthy_runs_get_none(digits, seed):
    gw.seed(seed)
    model = gw.Sequential(gw.Linear(64, 32), gw.ReLU(), gw.Linear(32, 10))
    history = fit(model, digits.train, test=digits.test, epochs=30, batch_size=16)
    assert history.hints() == []
    assert fit(epochs=20, test=(X, Y)).hints() == []
