"""The result of training: a history of epochs, as a sequence, as columns, as a table or as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire._info import Plan, quality_text
from gradwire._types import StopReason
from gradwire_engine.metrics import Metrics
from gradwire_engine.training import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(repr=False)
class History:
    """The epochs of a job, in order. `len`, indexing and iteration apply to `epochs`.

    Attributes:
        job: The job's name, or None if it ran in this process.
        plan: The plan and the machine that the job used.
        seed: The seed for the row order and the weights of deferred layers.
        epochs: The epochs.
        stop_reason: Why training ended; see `JobInfo`.
        model_epoch: The epoch whose weights the model has.
    """

    job: str | None = None
    plan: Plan | None = None
    seed: int | None = None
    epochs: list[Epoch] = field(default_factory=list)
    stop_reason: StopReason | None = None
    model_epoch: int | None = None

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def __getitem__(self, index: int) -> Epoch:
        return self.epochs[index]

    def __repr__(self) -> str:
        plural = "1 epoch" if len(self) == 1 else f"{len(self)} epochs"
        return f"History({plural}, {quality_text(self.epochs[-1])})" if self.epochs else "History(no epochs)"

    def to_dict(self) -> dict[str, list[float | None]]:
        """Return the history as columns of equal length.

        Returns:
            "epoch", "running_loss", "train_loss", "train_accuracy", ..., "test_loss", ..., "train_seconds" and
            "evaluate_seconds". A metric is None for epochs that were not evaluated. Metrics that no epoch has are
            omitted.
        """
        columns: dict[str, list[float | None]] = {
            "epoch": [epoch.epoch for epoch in self.epochs],
            "running_loss": [epoch.running_loss for epoch in self.epochs],
        }
        for name, sets in (
            ("train", [epoch.train for epoch in self.epochs]),
            ("test", [epoch.test for epoch in self.epochs]),
        ):
            for metric in fields(Metrics):
                values = [None if each is None else getattr(each, metric.name) for each in sets]
                if any(value is not None for value in values):
                    columns[f"{name}_{metric.name}"] = values
        columns["train_seconds"] = [epoch.train_seconds for epoch in self.epochs]
        columns["evaluate_seconds"] = [epoch.evaluate_seconds for epoch in self.epochs]
        return columns

    def to_pandas(self) -> DataFrame:
        """Return the columns of `to_dict` as a pandas DataFrame with one row for each epoch.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas  # noqa: PLC0415  (optional)
        except ImportError as error:
            raise ImportError("history.to_pandas() needs pandas. Install it with: pip install pandas") from error
        return pandas.DataFrame(self.to_dict())

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot the loss, and the accuracy or R2, against the epochs.

        Args:
            path: A .png, .svg or .pdf file in which to save the plot, or None.

        Returns:
            A matplotlib Figure, which a notebook shows.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: No epoch was evaluated.
        """
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415  (optional)
        except ImportError as error:
            raise ImportError(
                "history.plot() needs matplotlib. Install it with: pip install 'gradwire[plot]'"
            ) from error
        columns = self.to_dict()
        names = [name for name in ("loss", "accuracy", "r2") if f"train_{name}" in columns]
        if not names:
            raise ValueError("no epoch was evaluated, so there is nothing to plot")
        figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for which, style in (("train", "-"), ("test", "--")):
                values = columns.get(f"{which}_{name}", [])
                points = [pair for pair in zip(columns["epoch"], values, strict=bool(values)) if pair[1] is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=which)
            axes.set(xlabel="epoch", title=name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure
