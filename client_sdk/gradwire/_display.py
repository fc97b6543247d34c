"""Shows the training progress as a live table in a terminal or a notebook, and as plain lines elsewhere."""

import importlib
import io
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gradwire._info import epoch_text, seconds_text
from gradwire_engine.training import Epoch

# The number of recent epochs in the live table. The history contains all epochs.
_SHOWN_EPOCHS = 15
# Drawing takes longer than a short epoch, and more frequent updates would not be visible.
_REDRAW_SECONDS = 0.1


class Display:
    """Shows uploads and epochs. Use it as a context manager, which restores the terminal at the end.

    Args:
        shown: Whether to show the progress. None shows it only in a terminal or a notebook.
        console: The console on which to show the progress.
        clock: A function that returns the time in seconds.
    """

    def __init__(
        self, shown: bool | None = None, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console()
        self._clock = clock
        self._live_output = self._console.is_terminal or self._console.is_jupyter
        self._shown = self._live_output if shown is None else shown
        self._picture: _TerminalPicture | _NotebookPicture | None = None
        self._upload: Progress | None = None
        self._epochs: deque[Epoch] = deque(maxlen=_SHOWN_EPOCHS)
        self._job: str | None = None
        self._total = 0
        self._drawn_at = -_REDRAW_SECONDS
        self._is_drawn = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._end_upload()
        if not self._is_drawn:
            self._draw()
        if self._picture is not None:
            self._picture.close()

    def begin(self, job: str | None, epochs: int) -> None:
        """Announce a job. The name is None if the job runs in this process."""
        self._job, self._total = job, epochs

    def uploaded(self, sent: int, total: int) -> None:
        """Show the progress of the upload, in bytes."""
        if not (self._shown and self._console.is_terminal):
            return
        if self._upload is None:
            columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._upload = Progress(*columns, console=self._console, transient=True)
            self._upload.add_task("upload", total=total)
            self._upload.start()
        self._upload.update(self._upload.task_ids[0], completed=sent, total=total)

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch that has just ended. A live table is redrawn at most ten times a second."""
        self._end_upload()
        if not self._shown:
            return
        if self._live_output:
            self._epochs.append(epoch)
        else:
            self._console.file.write(epoch_text(epoch) + "\n")
        self._is_drawn = False
        if self._clock() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at, self._is_drawn = self._clock(), True
        if not self._live_output:
            self._console.file.flush()
            return
        if self._picture is None:
            self._picture = _NotebookPicture() if self._console.is_jupyter else _TerminalPicture(self._console)
        self._picture.show(epoch_table(list(self._epochs), self._title()))

    def _title(self) -> str:
        of_total = f"/{self._total}" if self._total else ""
        epoch = f"epoch {self._epochs[-1].epoch}{of_total}"
        return f"{self._job}: {epoch}" if self._job else epoch

    def _end_upload(self) -> None:
        if self._upload is not None:
            self._upload.stop()
            self._upload = None


class _TerminalPicture:
    """A table that is redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, table: Table) -> None:
        self._live.update(table, refresh=True)

    def close(self) -> None:
        self._live.stop()


class _NotebookPicture:
    """An output block in a notebook, which is updated in place."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._handle: Any = None

    def show(self, table: Table) -> None:
        console = Console(record=True, file=io.StringIO(), width=120, force_jupyter=False)
        console.print(table)
        html = self._display.HTML(console.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))
        if self._handle is None:
            self._handle = self._display.display(html, display_id=True)
        else:
            self._handle.update(html)

    def close(self) -> None:
        pass


def epoch_table(epochs: list[Epoch], title: str) -> Table:
    """Return a table of epochs, with the columns that contain values."""
    table = Table("epoch", title=Text(title), title_justify="left")
    columns = [
        (f"{which} {name.replace('_', ' ')}", which, name)
        for which in ("train", "test")
        for name in ("loss", "accuracy", "f1", "mean_absolute_error", "r2")
        if any(getattr(getattr(epoch, which), name, None) is not None for epoch in epochs)
    ]
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    table.add_column("time", justify="right")
    for epoch in epochs:
        values = [getattr(getattr(epoch, which), name, None) for _, which, name in columns]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        table.add_row(str(epoch.epoch), *cells, seconds_text(epoch.seconds))
    return table
