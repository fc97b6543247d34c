"""A fixed job that takes a few seconds, so that a test has time to disturb it."""

from typing import Any

import numpy as np

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, ReLU, Sequential

EPOCHS = 1500
# The number of jobs that the server in the `server` fixture runs at once, regardless of the number of processors.
SERVER_CAPACITY = 2


def data(rows: int = 2000) -> tuple[Any, Any]:
    """Return inputs of shape (rows, 64), and labels for five classes."""
    rng = np.random.default_rng(0)
    return rng.random((rows, 64)), rng.integers(0, 5, rows)


def submit(client: gw.Client, name: str, *, rows: int = 2000, **changes: Any) -> gw.Job:
    """Submit the job. `changes` are additional arguments for `client.jobs.submit`."""
    gw.seed(0)
    model = Sequential(Linear(64, 96), ReLU(), Linear(96, 5))
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=0.1), "epochs": EPOCHS, "batch_size": 8}
    return client.jobs.submit(model, data(rows), **(arguments | changes), name=name)


def submit_endless(client: gw.Client, name: str) -> gw.Job:
    """Submit a job whose only epoch takes minutes, and wait until it runs."""
    rows = 1_000_000
    inputs, targets = np.zeros((rows, 1), np.float32), np.zeros(rows, np.int64)
    model = Sequential(Linear(1, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 2))
    arguments = {"loss": CrossEntropy(), "optimizer": SGD(model, lr=1e-6), "epochs": 1, "batch_size": 1}
    job = client.jobs.submit(model, (inputs, targets), **arguments, name=name)
    for event in job.events():
        if event.state == "RUNNING":
            break
    return job
