"""The output that a user sees during training."""

import io
import re

import pytest
from epochs import epoch, epochs
from rich.console import Console
from small import X, Y, fit

import gradwire as gw
from gradwire._display import Display


class Clock:
    """A clock that a test can move forward."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def shown(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Display(shown=True, console=console) as display:
        display.uploaded(10, 100)
        display.begin("digits", 3)
        for epoch in fit(test=(X, Y)):
            display.epoch(epoch)
    return console.file.getvalue()


def test_epochs_are_plain_lines_without_a_terminal():
    *lines, summary = shown(terminal=False).splitlines()
    assert len(lines) == 3
    assert summary.startswith("3 epochs in ")
    assert "epoch 3  train loss" in shown(terminal=False)
    assert " ms)" in shown(terminal=False)


def test_epochs_are_a_table_with_the_job_and_the_total_in_a_terminal():
    assert "train accuracy" in shown(terminal=True)
    assert "digits: epoch 3/3" in shown(terminal=True)
    assert "uploading" in shown(terminal=True)


def test_nothing_is_shown_without_a_terminal_unless_asked_for():
    console = Console(file=io.StringIO(), force_terminal=False)
    with Display(console=console) as display:
        display.begin("x", 1)
        display.epoch(fit(epochs=1)[0])
    assert console.file.getvalue() == ""


def test_a_table_is_redrawn_at_most_ten_times_a_second_and_ends_with_the_last_epoch():
    clock, console = Clock(), Console(file=io.StringIO(), force_terminal=True, width=100)
    with Display(shown=True, console=console, clock=clock) as display:
        display.begin(None, 2000)
        drawn = []
        for epoch in fit(epochs=2000, evaluate_every=2000):
            before = console.file.tell()
            display.epoch(epoch)
            drawn.append(console.file.tell() > before)
            clock.now += 0.001
    assert sum(drawn) == 20
    assert "epoch 2000/2000" in console.file.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert shown(terminal=True).count("epoch ") == 3
    assert "\x1b" not in shown(terminal=True)


def test_the_summary_names_the_best_epoch_and_gives_a_hint():
    console = Console(file=io.StringIO(), force_terminal=False, width=40)
    losses = [0.5, 0.3, 0.2, 0.1, 0.05, 0.01]
    with Display(shown=True, console=console) as display:
        display.begin("x", 6)
        for each in epochs(losses, [0.6, 0.5, 0.7, 0.8, 0.9, 1.0], accuracy=0.9):
            display.epoch(each)
    *_, summary, hint = console.file.getvalue().splitlines()
    assert summary == "6 epochs in 72 ms. Best epoch: 2 (test loss 0.5000, test accuracy 0.9000)"
    assert hint.startswith("After epoch 2, the loss falls on the training set")


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        (
            {"early_stopping": gw.EarlyStopping("train.loss", 1, 100.0)},
            "Stopped early: train.loss no longer improved. ",
        ),
        ({"max_seconds": 1e-9}, "Stopped at the time limit. "),
        ({"on_epoch": lambda epoch: False}, "Stopped on request. "),
        ({}, ""),
    ],
)
def test_the_summary_names_why_training_ended_before_its_last_epoch(capsys, options, ending):
    history = fit(epochs=4, progress=True, **options)
    summary = capsys.readouterr().out.splitlines()[len(history)]
    assert re.match(rf"\d epochs? in [\d.]+ ms\. {ending}Best epoch: ", summary)


@pytest.mark.parametrize(("error", "shown"), [(ValueError, True), (KeyboardInterrupt, False)])
def test_the_summary_is_shown_after_a_failure_but_not_after_an_interruption(error, shown):
    console = Console(file=io.StringIO(), force_terminal=False)

    def train():
        with Display(shown=True, console=console) as display:
            display.begin("x", 3)
            display.epoch(epoch(1, 0.5))
            raise error

    with pytest.raises(error):
        train()
    assert ("Best epoch: 1" in console.file.getvalue()) == shown


def test_a_job_without_epochs_has_no_summary():
    console = Console(file=io.StringIO(), force_terminal=True, width=40)
    with Display(console=console) as display:
        display.begin("x", 3)
    assert "Best" not in console.file.getvalue()


def test_transfers_are_shown_in_a_terminal_and_in_a_notebook(notebook):
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    with Display(console=console) as display:
        display.downloaded(12_000_000, 50_000_000)
    assert "12.0/50.0 MB" in console.file.getvalue()
    with Display(console=Console(file=io.StringIO(), force_jupyter=True)) as display:
        display.uploaded(12_000_000, 50_000_000)
    assert "uploading 12.0 MB of 50.0 MB" in notebook[-1][1]


def test_a_notebook_is_updated_four_times_a_second_during_a_transfer(notebook):
    clock = Clock()
    with Display(console=Console(file=io.StringIO(), force_jupyter=True), clock=clock) as display:
        for sent in range(1, 101):
            display.uploaded(sent, 100)
            clock.now += 0.01
    assert len(notebook) == 5
    assert "100 B of 100 B" in notebook[-1][1]


def test_a_notebook_gets_one_output_block_that_is_updated(notebook):
    clock = Clock()
    with Display(console=Console(file=io.StringIO(), force_jupyter=True), clock=clock) as shown:
        shown.begin("digits", 3)
        for each in fit():
            shown.epoch(each)
            clock.now += 1
    assert [kind for kind, _ in notebook] == ["new", "update", "update", "update"]
    assert "<b>digits</b>: epoch 2/3" in notebook[1][1]
    assert "Best epoch: 3" in notebook[-1][1]
