"""Shows the progress of jobs, live in a terminal or a notebook, and as plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gradwire._follow import follow
from gradwire._info import epoch_text
from gradwire._notebook import Output, progress_html, transfer_html
from gradwire._progress import JobProgress
from gradwire._terminal import picture, transfer_bar
from gradwire._types import StopReason
from gradwire_engine.training import Epoch

if TYPE_CHECKING:
    from rich.progress import Progress

    from gradwire._job import Job

# Drawing takes longer than a short epoch, and people cannot see faster updates.
_REDRAW_SECONDS = 0.1
# A notebook gets the whole picture each time.
_NOTEBOOK_REDRAW_SECONDS = 0.25


class Display:
    """Shows uploads, epochs and the end of jobs. Use it as a context manager, which restores the terminal at the end.

    Args:
        shown: Whether to show the progress. None shows it only in a terminal or a notebook.
        console: The console on which to show the progress.
        clock: A function that returns the time in seconds.
    """

    def __init__(
        self, shown: bool | None = None, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        console = console or Console()
        self._clock = clock
        is_terminal = console.is_terminal and not console.is_dumb_terminal
        is_live = console.is_jupyter or is_terminal
        self._shown = is_live if shown is None else shown
        self._picture: _Picture = _Lines(console)
        if console.is_jupyter:
            self._picture = _NotebookPicture()
        elif is_terminal:
            self._picture = _TerminalPicture(console)
        self._jobs: list[JobProgress] = []
        self._announced: JobProgress | None = None
        self._drawn_at = self._transferred_at = float("-inf")
        self._is_drawn = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if kind is None and self._announced is not None:
            self._announced.state, self._is_drawn = "SUCCEEDED", False
        if not self._is_drawn:
            self._draw()
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._picture.close([] if is_interrupted or not self._shown else self._jobs)

    def begin(self, job: str | None, epochs: int, rows: int | None = None, monitor: str = "") -> None:
        """Announce a job, whose epochs the caller passes to `epoch`. It ends with the display.

        Args:
            job: The name, or None if the job runs in this process.
            epochs: The number of epochs.
            rows: The number of training rows, if it is known.
            monitor: The metric of early stopping, if there is one.
        """
        self._announced = JobProgress(job, epochs, rows=rows, monitor=monitor)
        self._jobs.append(self._announced)

    def end(self, reason: StopReason | None) -> None:
        """Set why the announced job ended, for its summary."""
        if self._announced is not None:
            self._announced.stop_reason = reason

    def uploaded(self, sent: int, total: int) -> None:
        """Show the progress of an upload, in bytes."""
        self._transfer("uploading", sent, total)

    def downloaded(self, received: int, total: int) -> None:
        """Show the progress of a download, in bytes."""
        self._transfer("downloading", received, total)

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch of the announced job. A live picture is redrawn at most ten times a second."""
        if self._shown and self._announced is not None:
            self._announced.add(epoch)
            self._changed(self._announced, epoch)

    def follow(self, *jobs: Job) -> Iterator[tuple[Job, Epoch]]:
        """Show what happens to jobs on a server until all have ended, and yield each epoch with its job."""
        if not self._shown and len(jobs) == 1:
            yield from ((jobs[0], epoch) for epoch in jobs[0].epochs())
            return
        begin = len(self._jobs)
        self._jobs += map(_progress_of, jobs)
        for update in follow(jobs):
            job = self._jobs[begin + update.job]
            if update.event is None:
                job.note = update.waiting or ""
                self._changed(job)
                continue
            epoch = job.apply(update.event)
            self._changed(job, epoch)
            if epoch is not None:
                yield jobs[update.job], epoch

    def _transfer(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if self._shown and (done == total or now - self._transferred_at >= self._picture.interval):
            self._transferred_at = now
            self._picture.transfer(what, done, total)

    def _changed(self, job: JobProgress, epoch: Epoch | None = None) -> None:
        if not self._shown:
            return
        self._picture.line(job, epoch, len(self._jobs) > 1)
        self._is_drawn = False
        if self._clock() - self._drawn_at >= self._picture.interval:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at, self._is_drawn = self._clock(), True
        if self._shown:
            self._picture.draw(self._jobs)


def _progress_of(job: Job) -> JobProgress:
    info = job.info
    message = job._async._message
    rows = message.spec.train.inputs.shape[0] if message.spec.train.inputs.shape else None
    monitor = message.spec.early_stopping.monitor
    return JobProgress(
        job.name, info.epochs, rows=rows, initial_epoch=info.initial_epoch, state="QUEUED", monitor=monitor
    )


class _Picture(Protocol):
    """A place where the progress is shown.

    Attributes:
        interval: The minimum time between two redraws, in seconds.
    """

    interval: float

    def transfer(self, what: str, done: int, total: int) -> None:
        """Show the progress of an upload or a download in bytes."""

    def line(self, job: JobProgress, epoch: Epoch | None, several: bool) -> None:
        """Add an epoch, or a new state of a job."""

    def draw(self, jobs: Sequence[JobProgress]) -> None:
        """Show the jobs."""

    def close(self, jobs: Sequence[JobProgress]) -> None:
        """Show the summaries of jobs, and end."""


class _Lines:
    """Plain lines: each epoch, each reason for waiting, and the summary."""

    interval = _REDRAW_SECONDS

    def __init__(self, console: Console) -> None:
        self._file = console.file
        self._notes: dict[str | None, str] = {}

    def transfer(self, what: str, done: int, total: int) -> None:
        pass

    def line(self, job: JobProgress, epoch: Epoch | None, several: bool) -> None:
        prefix = f"{job.name}: " if several else ""
        if epoch is not None:
            self._file.write(f"{prefix}{epoch_text(epoch)}\n")
        elif job.note and not job.has_ended and self._notes.get(job.name) != job.note:
            self._notes[job.name] = job.note
            self._file.write(f"{job.name}: {job.note}\n")

    def draw(self, jobs: Sequence[JobProgress]) -> None:  # noqa: ARG002  (the lines are already written)
        self._file.flush()

    def close(self, jobs: Sequence[JobProgress]) -> None:
        for line in summary_lines(jobs):
            self._file.write(f"{line}\n")
        self._file.flush()


class _TerminalPicture:
    """A picture that is redrawn in place."""

    interval = _REDRAW_SECONDS

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._bar: Progress | None = None

    def transfer(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = transfer_bar(what, total, self._console)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def line(self, job: JobProgress, epoch: Epoch | None, several: bool) -> None:
        pass

    def draw(self, jobs: Sequence[JobProgress]) -> None:
        self._end_transfer()
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(picture(jobs, self._console), refresh=True)

    def close(self, jobs: Sequence[JobProgress]) -> None:
        self._end_transfer()
        if self._live is not None:
            self._live.stop()
        for line in summary_lines(jobs):
            self._console.print(Text(line))

    def _end_transfer(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _NotebookPicture:
    """A part of a cell's output that is updated in place."""

    interval = _NOTEBOOK_REDRAW_SECONDS

    def __init__(self) -> None:
        self._output: Output | None = None

    def transfer(self, what: str, done: int, total: int) -> None:
        self._show(transfer_html(what, done, total))

    def line(self, job: JobProgress, epoch: Epoch | None, several: bool) -> None:
        pass

    def draw(self, jobs: Sequence[JobProgress]) -> None:
        self._show(progress_html(jobs))

    def close(self, jobs: Sequence[JobProgress]) -> None:
        pass

    def _show(self, html: str) -> None:
        if self._output is None:
            self._output = Output()
        self._output.show(html)


def summary_lines(jobs: Sequence[JobProgress]) -> list[str]:
    """Return the summaries of jobs. If there are several, each line starts with the name of its job."""
    return [f"{job.name}: {line}" if len(jobs) > 1 else line for job in jobs for line in job.summary()]
