"""Draws the progress of jobs for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gradwire._metrics import metric_of
from gradwire._progress import JobProgress, metric_columns
from gradwire_engine.formatting import count_text, number_text, seconds_text, sparkline, time_text
from gradwire_engine.training import Epoch

# The order in which columns are left out when the terminal is too narrow, highest first. Other columns always stay.
_PRIORITIES = {
    "test accuracy": 1, "test r2": 1, "train accuracy": 2, "train r2": 3, "time": 3, "test mean absolute error": 4,
    "train mean absolute error": 5, "test f1": 6, "train f1": 7,
}  # fmt: skip
# The number of spaces between two columns, and the terminal width below which there is only one space.
_GAP, _NARROW = 2, 60
_STATE_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow", "PAUSED": "yellow", "QUEUED": "cyan"}
_MIN_SPARK, _MAX_SPARK = 8, 30
# The lines of a picture besides the epochs: the title, two lines of headings, a rule, the curves, and notes.
_OTHER_LINES = 9


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: The heading. Each of its words can be on a separate line.
        cells: The cells, which stay on one line.
        priority: Columns with higher numbers are left out first. Columns with priority 0 always stay.
        left: Whether the cells are left-aligned.
        max_width: The maximum width. Longer cells are folded.
    """

    heading: str
    cells: list[str]
    priority: int = 0
    left: bool = False
    max_width: int = 200

    @property
    def min_width(self) -> int:
        """The width with each word of the heading on a separate line."""
        return min(self.max_width, max(map(cell_len, [*self.heading.split(), *self.cells]), default=0))

    @property
    def full_width(self) -> int:
        """The width with the heading on one line."""
        return max(self.min_width, cell_len(self.heading))


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the columns that fit in a width. The columns with the highest priority numbers are left out first."""
    kept = list(columns)
    while _total([column.min_width for column in kept], width) > width:
        least = max(kept, key=lambda column: column.priority)
        if least.priority == 0:
            break
        kept.remove(least)
    return kept


def _gap(width: int) -> int:
    return 1 if width < _NARROW else _GAP


def _total(widths: Sequence[int], width: int) -> int:
    """Return the width of a table with columns of these widths, in a terminal with this width."""
    return sum(widths) + (len(widths) - 1) * _gap(width)


def table_of(columns: Sequence[Column], width: int) -> Table:
    """Return a table of the columns that fit in a width."""
    kept = fitting(columns, width)
    full = _total([column.full_width for column in kept], width) <= width
    # Two columns are separated by the padding and one space of the box.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, _gap(width) - 1))
    for column in kept:
        table.add_column(
            Text(column.heading),
            justify="left" if column.left else "right",
            width=column.full_width if full else column.min_width,
            vertical="bottom",
            overflow="fold" if column.left else "ellipsis",
        )
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*map(Text, row))
    return table


def epoch_columns(epochs: Sequence[Epoch]) -> list[Column]:
    """Return the columns of a table of epochs: those with values."""
    columns = [Column("epoch", [str(epoch.epoch) for epoch in epochs])]
    for heading, (which, name) in metric_columns(epochs).items():
        cells = [number_text(metric_of(epoch, which, name)) for epoch in epochs]
        columns.append(Column(heading, cells, _PRIORITIES.get(heading, 0)))
    if len(columns) == 1:
        columns.append(Column("running loss", [number_text(epoch.running_loss) for epoch in epochs]))
    columns.append(Column("time", [seconds_text(epoch.seconds) for epoch in epochs], _PRIORITIES["time"]))
    return columns


def picture(jobs: Sequence[JobProgress], console: Console) -> RenderableType:
    """Return the picture of one job with its last epochs, or of several jobs with a line each."""
    return _one_job(jobs[0], console) if len(jobs) == 1 else _several_jobs(jobs, console)


def _one_job(job: JobProgress, console: Console) -> RenderableType:
    parts: list[RenderableType] = [_title(job)]
    if job.recent:
        shown = max(1, min(len(job.recent), console.height - _OTHER_LINES))
        parts += [table_of(epoch_columns(list(job.recent)[-shown:]), console.width), _curves(job, console)]
    if job.note:
        parts.append(_note(job.note, job.state))
    return Group(*parts)


def _title(job: JobProgress) -> Text:
    title = Text(f"{job.name}: " if job.name else "", style="bold")
    if job.state not in ("RUNNING", "SUCCEEDED"):
        title.append(f"{job.state} ", style=_STATE_STYLES.get(job.state, ""))
    if job.recent or job.state == "RUNNING":
        title.append(f"epoch {job.epoch_text()}")
    return title


def _curves(job: JobProgress, console: Console) -> Text:
    """Return the curves of the loss, the speed and the time left, on as few lines as they need."""
    curves = job.curves("loss")
    facts = _facts(job)
    # All are on one line unless the curves would become too short. In that case, each is on a separate line.
    free = (console.width - len(facts)) // len(curves) - len("train loss   ")
    width = max(_MIN_SPARK, min(_MAX_SPARK, free if free >= _MIN_SPARK else console.width - len("train loss ")))
    parts = [
        f"{which} loss {sparkline(curve.values, width, ascii_only=not _can_draw_bars(console))}"
        for which, curve in curves.items()
    ]
    lines = [""]
    for part in [*parts, facts] if facts else parts:
        if lines[-1] and cell_len(lines[-1]) + _GAP + cell_len(part) > console.width:
            lines.append("")
        lines[-1] += f"{' ' * _GAP if lines[-1] else ''}{part}"
    return Text("\n".join(lines))


def _facts(job: JobProgress) -> str:
    speed, left = job.rows_per_second(), job.seconds_left()
    facts = [f"{count_text(speed)} rows/s"] if speed is not None else []
    facts += [f"{time_text(left)} left"] if left is not None else []
    return ", ".join(facts)


def _several_jobs(jobs: Sequence[JobProgress], console: Console) -> RenderableType:
    last = [job.recent[-1] if job.recent else None for job in jobs]

    def values(which: str, name: str) -> list[str]:
        return [number_text(metric_of(epoch, which, name)) for epoch in last]

    bars = not _can_draw_bars(console)
    left = [job.seconds_left() for job in jobs]
    speed = [job.rows_per_second() for job in jobs]
    has_test = any(epoch is not None and epoch.test is not None for epoch in last)
    columns = [
        # Names have up to 63 characters.
        Column("job", [job.name or "" for job in jobs], left=True, max_width=max(12, console.width // 3)),
        Column("state", [job.state for job in jobs], 4, left=True),
        Column("epoch", [job.epoch_text() for job in jobs]),
        Column("train loss", values("train", "loss"), 3 if has_test else 1),
        Column("test loss", values("test", "loss"), 1),
        Column("train accuracy", values("train", "accuracy"), 6 if has_test else 2),
        Column("test accuracy", values("test", "accuracy"), 2),
        Column("test r2", values("test", "r2"), 2),
        Column("loss", [sparkline(job.loss("train").values, 12, ascii_only=bars) for job in jobs], 5, left=True),
        Column("rows/s", ["" if each is None else count_text(each) for each in speed], 7),
        Column("time left", ["" if each is None else time_text(each) for each in left], 6),
    ]
    shown = [column for column in columns if column.priority == 0 or any(column.cells)]
    notes = [_note(f"{job.name}: {job.note}", job.state) for job in jobs if job.note]
    return Group(table_of(shown, console.width), *notes)


def _note(text: str, state: str) -> Text:
    return Text(text, style=_STATE_STYLES.get(state, ""))


def _can_draw_bars(console: Console) -> bool:
    return (console.encoding or "").startswith("utf")


def transfer_bar(what: str, total: int, console: Console) -> Progress:
    """Return a bar for an upload or a download, which is removed when it stops.

    Args:
        what: "uploading" or "downloading".
        total: The size in bytes.
        console: The terminal.
    """
    columns = [TextColumn(what), BarColumn(bar_width=None), DownloadColumn()]
    if console.width >= 60:
        columns.append(TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True, expand=True)
    bar.add_task(what, total=total)
    return bar
