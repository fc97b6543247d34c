"""Draws jobs, histories and lists as HTML for notebooks, and shows the HTML in the output of a cell."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from gradwire._info import JobInfo, ModelInfo, quality_text
from gradwire._metrics import metric_of
from gradwire._progress import JobProgress, metric_columns
from gradwire._svg import COLORS, Series, chart
from gradwire_engine.formatting import count_text, number_text, seconds_text, size_text, time_text

if TYPE_CHECKING:
    from gradwire._history import History
    from gradwire._workers import WorkersInfo

_SHOWN_EPOCHS = 8
# More rows make a notebook slow, and nobody reads them.
_SHOWN_ROWS = 50
_METRICS = ("loss", "accuracy", "r2")


class Output:
    """A part of a cell's output that is replaced as a whole. The notebook needs no event loop of its own for this."""

    def __init__(self) -> None:
        self._display: Any = importlib.import_module("IPython.display")
        self._handle: Any = None

    def show(self, html: str) -> None:
        """Replace the output."""
        content = self._display.HTML(html)
        if self._handle is None:
            self._handle = self._display.display(content, display_id=True)
        else:
            self._handle.update(content)


def progress_html(jobs: Sequence[JobProgress]) -> str:
    """Return the progress of jobs: curves and the last epochs of one job, or a line and a curve for each of several."""
    return _block("".join(_job_progress(job, of_several=len(jobs) > 1) for job in jobs))


def transfer_html(what: str, done: int, total: int) -> str:
    """Return the progress of an upload or a download in bytes."""
    text = f"{what} {size_text(done)} of {size_text(total)}"
    return _block(f'<progress value="{done}" max="{max(total, 1)}"></progress> {escape(text)}')


def history_html(history: History) -> str:
    """Return the curves, the last epochs and the best epoch of a history, and why training ended early."""
    job = JobProgress.of(history.epochs, history.job, history.stop_reason, complete=history.complete)
    return _block(f"<div><b>{escape(repr(history))}</b></div>{_charts(job)}{_epochs(job)}{_notes(job)}")


def job_html(info: JobInfo) -> str:
    """Return the description of a job."""
    rows = [
        ("state", info.state),
        ("architecture", info.architecture),
        ("epochs", f"{info.epochs_done}/{info.epochs}"),
        ("last epoch", quality_text(info.last_epoch) if info.last_epoch else ""),
        ("plan", f"{info.plan.name} on {info.plan.host}" if info.plan else ""),
        ("error", info.error or ""),
        ("model", info.model or ""),
        ("labels", _labels(info.labels)),
        ("created", f"{info.created:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    return _block(f"<div><b>{escape(info.name)}</b></div>{_table((), [row for row in rows if row[1]])}")


def jobs_html(infos: Sequence[JobInfo]) -> str:
    """Return a table of jobs."""
    rows = [
        (
            info.name,
            info.state,
            info.architecture,
            f"{info.epochs_done}/{info.epochs}",
            quality_text(info.last_epoch) if info.last_epoch else "",
            f"{info.created:%Y-%m-%d %H:%M}",
            _labels(info.labels),
        )
        for info in infos[:_SHOWN_ROWS]
    ]
    headings = ("job", "state", "architecture", "epochs", "last epoch", "created (UTC)", "labels")
    return _block(_table(headings, rows) + _rest(len(infos), "jobs"))


def models_html(infos: Sequence[ModelInfo]) -> str:
    """Return a table of models."""
    rows = [
        (
            info.name,
            info.architecture,
            f"{info.parameters:,}",
            f"{info.epoch.epoch}: {quality_text(info.epoch)}",
            f"{info.created:%Y-%m-%d %H:%M}",
            _labels(info.labels),
        )
        for info in infos[:_SHOWN_ROWS]
    ]
    headings = ("model", "architecture", "parameters", "epoch", "created (UTC)", "labels")
    return _block(_table(headings, rows) + _rest(len(infos), "models"))


def workers_html(info: WorkersInfo) -> str:
    """Return the workers and the queue as two tables."""
    workers = [
        (each.job or "idle", str(each.attempt or ""), each.device, each.host) for each in info.workers[:_SHOWN_ROWS]
    ]
    queue = [(each.name, f"{each.created:%Y-%m-%d %H:%M:%S}", each.reason) for each in info.queue[:_SHOWN_ROWS]]
    parts = [f"<div><b>{escape(info.summary)}</b></div>"]
    if workers:
        parts += [_table(("job", "attempt", "device", "host"), workers), _rest(info.busy + info.idle, "workers")]
    if queue:
        parts += [_table(("queued job", "created (UTC)", "reason"), queue), _rest(info.queued, "queued jobs")]
    return _block("".join(parts))


def _job_progress(job: JobProgress, *, of_several: bool) -> str:
    name = f"<b>{escape(job.name)}</b>: " if job.name else ""
    speed, left = job.rows_per_second(), job.seconds_left()
    facts = [] if job.state == "RUNNING" else [escape(job.state)]
    facts += [f"epoch {job.epoch_text()}"] if job.recent or job.state == "RUNNING" else []
    facts += [f"{count_text(speed)} rows/s"] if speed is not None else []
    facts += [f"{time_text(left)} left"] if left is not None else []
    share = job.last_epoch / job.epochs if job.epochs else 0.0
    title = f'<div>{name}{", ".join(facts)} <progress value="{share:.4f}" max="1"></progress></div>'
    body = _charts(job) if job.recent else ""
    body += _epochs(job) if job.recent and not of_several else ""
    return f"{title}{body}{_notes(job)}"


def _charts(job: JobProgress) -> str:
    charts = []
    for metric in _METRICS:
        curves = job.curves(metric)
        if curves:
            series = [
                Series(which, curve, COLORS[0 if which == "train" else 1], dashed=which == "test")
                for which, curve in curves.items()
            ]
            charts.append(chart("R2" if metric == "r2" else metric, series))
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(charts)}</div>'


def _epochs(job: JobProgress) -> str:
    epochs = list(job.recent)[-_SHOWN_EPOCHS:]
    columns = metric_columns(epochs)
    rows = [
        [
            str(epoch.epoch),
            *(number_text(metric_of(epoch, which, name)) for which, name in columns.values()),
            seconds_text(epoch.seconds),
        ]
        for epoch in epochs
    ]
    return _table(["epoch", *columns, "time"], rows, "right")


def _notes(job: JobProgress) -> str:
    lines = [job.note] if job.note else []
    lines += job.summary() if job.has_ended else []
    return "".join(f"<div>{escape(line)}</div>" for line in lines)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], side: Literal["left", "right"] = "left") -> str:
    """Return a table. Notebooks right-align cells, which suits only numbers."""
    head = "".join(f'<th style="text-align:{side}">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:{side}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def _rest(count: int, noun: str) -> str:
    return f"<div>and {count - _SHOWN_ROWS:,} more {noun}</div>" if count > _SHOWN_ROWS else ""


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _block(html: str) -> str:
    return f'<div class="gradwire">{html}</div>'
