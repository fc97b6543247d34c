"""Pictures of jobs in terminals of several widths, without color and with unusual numbers."""

import io
import math

import pytest
from epochs import epoch, epochs
from rich.cells import cell_len
from rich.console import Console

from gradwire._progress import JobProgress
from gradwire._terminal import Column, fitting, picture, transfer_bar

WIDTHS = (40, 80, 120)


def drawn(jobs, width=80, **options):
    """Return what a terminal shows, as lines without trailing spaces."""
    console = Console(width=width, height=40, file=io.StringIO(), record=True, **options)
    console.print(picture(jobs, console))
    return [line.rstrip() for line in console.export_text(styles=False).splitlines()]


def job(name="digits", total=20, **changes):
    progress = JobProgress(name, total, rows=1000, **changes)
    losses = [1 / number for number in range(1, 13)]
    for each in epochs(losses, [loss * 1.1 for loss in losses], accuracy=0.925, f1=0.924):
        progress.add(each)
    return progress


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_none_is_cut(width):
    for jobs in ([job()], [job("a"), job("b-with-a-longer-name")]):
        lines = drawn(jobs, width)
        assert max(map(cell_len, lines)) <= width
        assert "…" not in "".join(lines)


def test_a_wide_terminal_shows_everything_about_a_job():
    lines = drawn([job()], 120)
    assert lines[0] == "digits: epoch 12/20"
    headings = ["epoch", "train loss", "train accuracy", "train f1", "test loss", "test accuracy", "test f1", "time"]
    assert [heading.strip() for heading in lines[1].split("  ")] == headings
    assert lines[-2].split() == ["12", "0.0833", "0.9250", "0.9240", "0.0917", "0.9250", "0.9240", "12", "ms"]
    assert lines[-1].startswith("train loss █▄")
    assert lines[-1].endswith("100k rows/s, 1 s left")


def test_40_columns_show_the_losses_the_accuracy_the_curves_and_the_time_left():
    lines = drawn([job()], 40)
    assert lines[1].split() == ["train", "train", "test", "test"]
    assert lines[2].split() == ["epoch", "loss", "accuracy", "loss", "accuracy"]
    assert lines[-4].split() == ["12", "0.0833", "0.9250", "0.0917", "0.9250"]
    assert lines[-3].startswith("train loss █")
    assert lines[-2].startswith("test loss █")
    assert lines[-1] == "100k rows/s, 1 s left"


@pytest.mark.parametrize("width", WIDTHS)
def test_several_jobs_have_a_line_each(width):
    waiting = JobProgress("c", 20, state="QUEUED")
    waiting.note = "waits for a worker: 2 jobs running"
    lines = drawn([job("a"), job("b", state="FAILED"), waiting], width)
    assert [line.split()[0] for line in lines if line[:2] in ("a ", "b ", "c ")] == ["a", "b", "c"]
    assert "12/20" in "".join(lines)
    assert {"0.0917", "0.9250"} <= set(" ".join(lines).split())
    assert "c: waits for a worker" in "\n".join(lines)
    assert ("rows/s" in "".join(lines)) == (width == 120)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_name_is_folded_and_leaves_room_for_the_numbers(width):
    name = "a-" + "very-" * 11 + "long"
    lines = drawn([job(name), job("b")], width)
    assert max(map(cell_len, lines)) <= width
    assert {"12/20", "0.0917", "0.9250"} <= set(" ".join(lines).split())
    assert name in "".join(line.split()[0] for line in lines[2:] if line.split())


def test_nan_and_huge_numbers_do_not_break_the_table():
    progress = JobProgress("x", 3)
    for number, loss in enumerate([math.nan, 1e30, math.inf], start=1):
        progress.add(epoch(number, loss))
    lines = drawn([progress], 40)
    assert [line.split()[1] for line in lines[3:6]] == ["nan", "1.00e+30", "inf"]
    assert lines[-1].startswith("train loss  ▁")


def test_epochs_that_were_not_evaluated_show_their_running_loss():
    progress = JobProgress("x", 3)
    progress.add(epoch(1, None))
    assert "running loss" in drawn([progress])[1]


def test_one_epoch_and_no_epoch_are_shown():
    progress = JobProgress("x", 1, state="QUEUED")
    assert drawn([progress]) == ["x: QUEUED"]
    progress.state = "RUNNING"
    assert drawn([progress]) == ["x: epoch 0/1"]
    progress.add(epoch(1, 0.5))
    assert drawn([progress])[0] == "x: epoch 1/1"
    assert drawn([JobProgress(None, 5)]) == ["epoch 0/5"]


def test_a_waiting_job_says_why():
    progress = JobProgress("x", 5, state="QUEUED")
    progress.note = "waits for a worker: 1 job queued before it, 2 jobs running"
    assert drawn([progress], 120) == ["x: QUEUED", progress.note]
    assert " ".join(drawn([progress], 40)) == f"x: QUEUED {progress.note}"


def test_brackets_are_not_markup():
    progress = JobProgress("[bold]x[/bold]", 5, state="FAILED")
    progress.note = "[red]oh[/red]"
    assert drawn([progress]) == ["[bold]x[/bold]: FAILED", "[red]oh[/red]"]


def test_without_color_there_are_no_colors(monkeypatch):
    def output():
        console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="truecolor")
        console.print(picture([job(state="FAILED")], console))
        return console.file.getvalue()

    assert "\x1b[1;31m" in output()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in output()
    assert "FAILED" in output()


def test_a_terminal_without_unicode_gets_ascii():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(width=80, file=file)
    for jobs in ([job()], [job("a"), job("b")]):
        console.print(picture(jobs, console))
    file.flush()
    assert b"train loss #=-" in file.buffer.getvalue()


def test_a_low_terminal_shows_fewer_epochs():
    console = Console(width=80, height=13, file=io.StringIO())
    console.print(picture([job()], console))
    assert 9 <= console.file.getvalue().count("\n") <= 12


def test_columns_give_way_in_their_order():
    columns = [Column("a", ["12345"]), Column("b c", ["1"], 2), Column("d", ["1"], 1)]
    assert fitting(columns, 9) == columns
    assert [column.heading for column in fitting(columns, 8)] == ["a", "d"]
    assert [column.heading for column in fitting(columns, 6)] == ["a"]
    assert [column.heading for column in fitting(columns, 1)] == ["a"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bar_of_a_transfer_fits_in_the_terminal(width):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    bar = transfer_bar("downloading", 50_000_000, console)
    bar.update(bar.task_ids[0], completed=12_000_000)
    console.print(bar.get_renderable())
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1
    assert "downloading" in lines[0]
    assert "12.0/50.0 MB" in lines[0]
    assert cell_len(lines[0].rstrip()) <= width
