"""Losses, steps and whole training runs, compared with numbers that were computed without this repository."""

import numpy as np
import pytest
from oracle import LOSSES, ORACLE, assert_fit_has_the_numbers_of

from gradwire_engine import SGD, Parameter


@pytest.mark.parametrize("case", ORACLE["losses"], ids=lambda case: case["loss"])
def test_a_loss_and_its_gradient_match_an_independent_implementation(case):
    loss = LOSSES[case["loss"]]
    value = loss.forward(np.array(case["predictions"]), np.array(case["targets"]))
    assert value == pytest.approx(case["value"], rel=1e-12)
    np.testing.assert_allclose(loss.backward(), case["gradient"], rtol=1e-10, atol=1e-14)


def test_an_sgd_step_matches_its_formula():
    parameter = Parameter(np.array([1.0, -2.0, 0.5]))
    optimizer = SGD([parameter], lr=0.25)
    for _ in range(2):
        parameter.grad[...] = [4.0, -1.0, 0.0]
        optimizer.step()
        optimizer.zero_grad()
    assert parameter.data.tolist() == [-1.0, -1.5, 0.5]
    assert parameter.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("plan", ["reference", "compiled"])
@pytest.mark.parametrize("training", ORACLE["trainings"], ids=lambda training: training["loss"])
def test_an_epoch_matches_an_independent_implementation(training, plan, monkeypatch):
    monkeypatch.setenv("GRADWIRE_PLAN", plan)
    assert_fit_has_the_numbers_of(training, at="local")
