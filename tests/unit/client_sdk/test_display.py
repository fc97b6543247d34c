"""The output that a user sees during training."""

import io
import sys
from types import SimpleNamespace

from rich.console import Console
from small import X, Y, fit

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
    assert shown(terminal=False).count("\n") == 3
    assert "epoch 3  train loss" in shown(terminal=False)
    assert " ms)" in shown(terminal=False)


def test_epochs_are_a_table_with_the_job_and_the_total_in_a_terminal():
    assert "train accuracy" in shown(terminal=True)
    assert "digits: epoch 3/3" in shown(terminal=True)
    assert "uploading" in shown(terminal=True)


def test_nothing_is_shown_without_a_terminal_unless_asked_for():
    console = Console(file=io.StringIO(), force_terminal=False)
    with Display(console=console) as display:
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


def test_brackets_in_a_name_are_shown_as_they_are():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Display(shown=True, console=console) as display:
        display.begin("a[bold]b", 1)
        display.epoch(fit(epochs=1)[0])
    assert "a[bold]b" in console.file.getvalue()


def test_a_notebook_gets_one_output_block_that_is_updated(monkeypatch):
    outputs = []

    class Handle:
        def update(self, html):
            outputs.append(("update", html))

    def display(html, display_id):
        outputs.append(("new", html))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    clock = Clock()
    with Display(console=Console(file=io.StringIO(), force_jupyter=True), clock=clock) as shown:
        shown.begin("digits", 3)
        for epoch in fit():
            shown.epoch(epoch)
            clock.now += 1
    assert [kind for kind, _ in outputs] == ["new", "update", "update"]
    assert "digits: epoch 3/3" in outputs[-1][1]
