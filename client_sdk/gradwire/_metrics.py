"""The metrics of an epoch by name."""

from __future__ import annotations

from dataclasses import fields

from gradwire_engine.metrics import Metrics
from gradwire_engine.training import Epoch

SETS = ("train", "test")
_KEYS = [(which, metric.name) for which in SETS for metric in fields(Metrics)]


def metric_names() -> list[str]:
    """Return the names of all metrics in the order of a table, for example "train_loss"."""
    return [f"{which}_{name}" for which, name in _KEYS]


def named_metrics(epoch: Epoch, separator: str = "_") -> dict[str, float]:
    """Return the metrics that an epoch has, keyed by "train" or "test", the separator and the name of the metric."""
    found = {f"{which}{separator}{name}": metric_of(epoch, which, name) for which, name in _KEYS}
    return {name: value for name, value in found.items() if value is not None}


def metric_of(epoch: Epoch | None, which: str, name: str) -> float | None:
    """Return a metric of an epoch on "train" or "test", or None if the epoch does not have it."""
    return getattr(getattr(epoch, which, None), name, None)
