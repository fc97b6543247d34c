"""How training looks while it runs: a live table in a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from gradwire._info import epoch_text
from gradwire_engine.training import Epoch

# The live table shows this many of the newest epochs; the history has them all.
_SHOWN_EPOCHS = 15


class Display:
    """Shows uploads and epochs. Used as a context, so that the terminal is left in order whatever happens."""

    def __init__(self, shown: bool | None = None, console: Console | None = None) -> None:
        """`shown` is None for "where there is a terminal"."""
        self._console = console or Console()
        self._shown = self._console.is_terminal if shown is None else shown
        self._live: Live | None = None
        self._upload: Progress | None = None
        self._epochs: list[Epoch] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._end_upload()
        if self._live is not None:
            self._live.stop()

    def uploaded(self, sent: int, total: int) -> None:
        """Show how far the upload is, in bytes."""
        if not (self._shown and self._console.is_terminal):
            return
        if self._upload is None:
            columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._upload = Progress(*columns, console=self._console, transient=True)
            self._upload.add_task("upload", total=total)
            self._upload.start()
        self._upload.update(self._upload.task_ids[0], completed=sent, total=total)

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch that has just ended."""
        self._end_upload()
        if not self._shown:
            return
        if not self._console.is_terminal:
            self._console.print(epoch_text(epoch), highlight=False, soft_wrap=True)
            return
        self._epochs.append(epoch)
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(epoch_table(self._epochs[-_SHOWN_EPOCHS:]), refresh=True)

    def _end_upload(self) -> None:
        if self._upload is not None:
            self._upload.stop()
            self._upload = None


def epoch_table(epochs: list[Epoch]) -> Table:
    """Return epochs as a table, with the columns that they have something in."""
    table = Table("epoch")
    columns = [
        (f"{which} {name.replace('_', ' ')}", which, name)
        for which in ("train", "test")
        for name in ("loss", "accuracy", "f1", "mean_absolute_error", "r2")
        if any(getattr(getattr(epoch, which), name, None) is not None for epoch in epochs)
    ]
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    table.add_column("seconds", justify="right")
    for epoch in epochs:
        values = [getattr(getattr(epoch, which), name, None) for _, which, name in columns]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        table.add_row(str(epoch.epoch), *cells, f"{epoch.seconds:.2f}")
    return table
