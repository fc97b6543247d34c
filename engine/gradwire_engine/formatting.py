"""Formats numbers, rates, times, metrics and curves as short text, for terminals, notebooks and model cards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradwire_engine.training import Epoch

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*%#"


def number_text(value: float | None) -> str:
    """Return a metric as text, for example "0.1234", "1.23e-05" or "nan". None becomes an empty text."""
    if value is None:
        return ""
    if math.isfinite(value) and value != 0 and not 1e-4 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:.4f}"


def count_text(count: float) -> str:
    """Return a large number as text, for example "950", "12.4k" or "1.24M"."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g}{suffix}" if count < 999.5 * factor else f"{count / factor:.0f}{suffix}"
    return f"{count:.0f}"


def size_text(count: int) -> str:
    """Return a size as text, in bytes, kB or MB."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def time_text(seconds: float) -> str:
    """Return a duration in whole seconds, minutes or hours, for example "45 s", "2 min 5 s" or "3 h 20 min"."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def seconds_text(seconds: float) -> str:
    """Return a duration as text, in seconds, or in milliseconds if it is short."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def metrics_text(epoch: Epoch) -> str:
    """Return the loss and the accuracy or R2 of an epoch, for example "test loss 0.2512, test accuracy 0.9250"."""
    for which, metrics in (("test", epoch.test), ("train", epoch.train)):
        if metrics is not None:
            values = {"loss": metrics.loss, "accuracy": metrics.accuracy, "R2": metrics.r2}
            known = {name: value for name, value in values.items() if value is not None}
            return ", ".join(f"{which} {name} {number_text(value)}" for name, value in known.items())
    return f"running loss {number_text(epoch.running_loss)}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, for example "1 job" or "2 jobs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Return values as a line of bars, from the smallest to the largest value. Values that are not finite are spaces.

    Args:
        values: The values. If there are more than `width`, each bar is the mean of several values.
        width: The maximum number of bars.
        ascii_only: Whether to use only ASCII characters.
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    points = _grouped(values, width)
    finite = [point for point in points if math.isfinite(point)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = high - low

    def bar(point: float) -> str:
        if not math.isfinite(point):
            return " "
        return bars[round((point - low) / span * (len(bars) - 1))] if 0 < span < math.inf else bars[0]

    return "".join(map(bar, points))


def _grouped(values: Sequence[float], count: int) -> list[float]:
    """Return at most `count` means of consecutive values."""
    if len(values) <= count:
        return list(values)
    bounds = [index * len(values) // count for index in range(count + 1)]
    return [finite_mean(values[start:end]) for start, end in pairwise(bounds)]


def finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values, or NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(value / len(finite) for value in finite) if finite else math.nan
