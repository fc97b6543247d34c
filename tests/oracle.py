"""Compares a fit with results that were computed without this repository's code; see golden/training_oracle.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from gradwire import SGD, Linear, ReLU, Sequential

ORACLE = json.loads((Path(__file__).parent / "golden" / "training_oracle.json").read_text())
LOSSES = {
    "CrossEntropy()": gw.CrossEntropy(),
    "CrossEntropy(from_logits=False)": gw.CrossEntropy(False),
    "MSE()": gw.MSE(),
}


def assert_fit_has_the_numbers_of(expected: dict[str, Any], at: str) -> None:
    """Repeat a training run of the oracle in float64, and compare the weights and every metric of every epoch."""
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    targets = labels if expected["loss"] == "CrossEntropy()" else labels.astype(np.float64)
    layers = [module for width in expected["widths"] for module in (Linear(width), ReLU())][:-1]
    model = Sequential(*layers)
    history = gw.fit(
        model,
        (x[:600] / 16, targets[:600]),
        test=(x[600:800] / 16, targets[600:800]),
        loss=LOSSES[expected["loss"]],
        optimizer=SGD(model, lr=expected["lr"]),
        dtype="float64",
        at=at,
        **{name: expected[name] for name in ("epochs", "batch_size", "seed", "shuffle")},
    )
    assert len(history) == len(expected["results"])
    for epoch, numbers in zip(history, expected["results"], strict=True):
        assert epoch.running_loss == pytest.approx(numbers["running_loss"], rel=1e-9)
        for name in ("train", "test"):
            found = {metric: value for metric, value in vars(getattr(epoch, name)).items() if value is not None}
            assert found == pytest.approx(numbers[name], rel=1e-9), (epoch.epoch, name)
    flat = np.concatenate([parameter.data.ravel() for parameter in model.parameters()])
    assert flat.sum() == pytest.approx(expected["weights"]["sum"], rel=1e-9)
    assert np.linalg.norm(flat) == pytest.approx(expected["weights"]["norm"], rel=1e-9)
    np.testing.assert_allclose(flat[::50], expected["weights"]["every_50th"], rtol=1e-8, atol=1e-12)
