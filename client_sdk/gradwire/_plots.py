"""Draws histories with matplotlib. A notebook shows a figure once, in the cell that created it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from gradwire._svg import COLORS

if TYPE_CHECKING:
    from gradwire._history import History

_METRICS = {"loss": "loss", "accuracy": "accuracy", "r2": "R2"}


class InlineFigure(Figure):
    """A Figure that shows itself in a notebook, even if it is not the last expression of the cell."""

    _shown_in: int | None = None

    def show_inline(self) -> None:
        """Show the figure in the output of the current cell. Outside a notebook, do nothing."""
        cell = _current_cell()
        if cell is not None:
            self._ipython_display_()
            self._shown_in = cell

    def _ipython_display_(self) -> None:
        """Show the figure for IPython, unless the same cell already shows it."""
        if self._shown_in is not None and self._shown_in == _current_cell():
            return
        from io import BytesIO  # noqa: PLC0415  (only for notebooks)

        from IPython.display import Image, display  # noqa: PLC0415  (optional)

        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=144)
        display(Image(buffer.getvalue(), retina=True))  # At 72 dots per inch, it is as wide as a cell.


def _current_cell() -> int | None:
    """Return the number of the running cell, or None outside a notebook."""
    # If IPython is not loaded, this process is not a notebook.
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return shell.execution_count if shell is not None and hasattr(shell, "kernel") else None


def plot_histories(histories: Mapping[str, History], path: str | Path | None) -> Figure:
    """Draw the loss, and the accuracy or R2, of one or several histories over the epochs.

    Args:
        histories: The histories, keyed by their labels. A single history needs no label.
        path: A .png, .svg or .pdf file in which to save the plot, or None.

    Raises:
        ValueError: No epoch was evaluated.
    """
    columns = {label: history.to_dict() for label, history in histories.items()}
    names = [name for name in _METRICS if any(f"train_{name}" in each for each in columns.values())]
    if not names:
        raise ValueError("no epoch was evaluated, so there is nothing to plot")
    figure = InlineFigure(figsize=(5 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for index, (label, each) in enumerate(columns.items()):
            for which, style in (("train", "-"), ("test", "--")):
                points = _points(each, f"{which}_{name}")
                if points:
                    color = COLORS[index % len(COLORS)] if len(columns) > 1 else None
                    text = f"{label} {which}" if len(columns) > 1 else which
                    axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=text, color=color)
        axes.set(xlabel="epoch", title=_METRICS[name])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if path is not None:
        figure.savefig(path, dpi=150)
    figure.show_inline()
    return figure


def _points(columns: Mapping[str, Sequence[float | None]], name: str) -> list[tuple[float | None, float]]:
    pairs = zip(columns["epoch"], columns.get(name, ()), strict=name in columns)
    return [(epoch, value) for epoch, value in pairs if value is not None]
