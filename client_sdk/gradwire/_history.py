"""The result of training: a history of epochs, as a sequence, as columns, as a table or as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradwire._exceptions import InvalidArgumentError
from gradwire._info import Plan, quality_text
from gradwire._metrics import metric_names, named_metrics
from gradwire._paths import in_existing_folder, to_path
from gradwire._types import StopReason
from gradwire_engine.formatting import plural
from gradwire_engine.optional import required
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
        model_epoch: The epoch that the model's weights are from.
        complete: Whether `epochs` contains all epochs. If not, it is a sample; see `job.history()`.
    """

    job: str | None = None
    plan: Plan | None = None
    seed: int | None = None
    epochs: list[Epoch] = field(default_factory=list)
    stop_reason: StopReason | None = None
    model_epoch: int | None = None
    complete: bool = True

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self.epochs)

    def __getitem__(self, index: int) -> Epoch:
        return self.epochs[index]

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epochs)"
        last = self.epochs[-1]
        sample = "" if self.complete else f", a sample up to epoch {last.epoch}"
        return f"History({plural(len(self), 'epoch')}{sample}, {quality_text(last)})"

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
        metrics = [named_metrics(epoch) for epoch in self.epochs]
        known = set[str]().union(*metrics)
        for name in metric_names():
            if name in known:
                columns[name] = [each.get(name) for each in metrics]
        columns["train_seconds"] = [epoch.train_seconds for epoch in self.epochs]
        columns["evaluate_seconds"] = [epoch.evaluate_seconds for epoch in self.epochs]
        return columns

    def to_pandas(self) -> DataFrame:
        """Return the columns of `to_dict` as a pandas DataFrame with one row for each epoch.

        Raises:
            ImportError: pandas is not installed.
        """
        frame: DataFrame = required("pandas", "history.to_pandas()", "pandas").DataFrame(self.to_dict())
        return frame

    @property
    def best(self) -> Epoch | None:
        """The epoch with the lowest loss on the test set or, without a test set, on the training set.

        If no epoch was evaluated, this is the epoch with the lowest running loss. None if there are no epochs. For a
        sample, this is the best epoch of the sample.
        """
        from gradwire._progress import best_key  # noqa: PLC0415  (a program that only trains does not need it)

        return min(self.epochs, key=best_key, default=None)

    def hints(self) -> list[str]:
        """Return suggestions based on the curves, or an empty list.

        There is a hint if the loss rises from the start, if it hardly changes, or if it falls on the training set while
        it rises on the test set.
        """
        from gradwire._progress import JobProgress  # noqa: PLC0415

        return JobProgress.of(self.epochs).hints()

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot the loss, and the accuracy or R2, against the epochs. A notebook shows the plot in the current cell.

        Args:
            path: A .png, .svg or .pdf file in which to save the plot, or None.

        Returns:
            A matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: No epoch was evaluated.
            FileError: The folder of the file does not exist.
        """
        return _plot("history.plot", {self.job or "run": self}, path)

    def _repr_html_(self) -> str:
        """Return the curves and the last epochs as HTML for a notebook."""
        from gradwire._notebook import history_html  # noqa: PLC0415  (only for notebooks)

        return history_html(self)


def plot(histories: Sequence[History] | Mapping[str, History], path: str | Path | None = None) -> Figure:
    """Draw the loss, and the accuracy or R2, of several histories in one plot, to compare them.

    A notebook shows the plot in the current cell.

    Args:
        histories: The histories, or a dict from labels to histories. By default, the labels are the names of the jobs,
            or "run 1", "run 2" and so on.
        path: A .png, .svg or .pdf file in which to save the plot, or None.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        InvalidArgumentError: `histories` contains something that is not a history.
        ValueError: No epoch was evaluated.
        FileError: The folder of the file does not exist.
    """
    if isinstance(histories, History):
        histories = [histories]
    if not isinstance(histories, Mapping):
        named = [getattr(each, "job", None) or f"run {number}" for number, each in enumerate(histories, start=1)]
        # If several runs had the same name, all but one of them would be hidden.
        labels = named if len(set(named)) == len(named) else [f"{each} ({n})" for n, each in enumerate(named, start=1)]
        histories = dict(zip(labels, histories, strict=True))
    for each in histories.values():
        if not isinstance(each, History):
            raise InvalidArgumentError(
                f"histories: must be histories, as fit() returns them, got {type(each).__name__}"
            )
    return _plot("gw.plot", histories, path)


def _plot(function: str, histories: Mapping[str, History], path: str | Path | None) -> Figure:
    required("matplotlib.figure", f"{function}()", "'gradwire[plot]'")
    from gradwire._plots import plot_histories  # noqa: PLC0415

    return plot_histories(histories, None if path is None else in_existing_folder(to_path(path)))
