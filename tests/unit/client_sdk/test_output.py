"""The output of the commands."""

import time
from datetime import UTC, datetime

import pytest

from gradwire._formatting import size_text
from gradwire.cli.output import print_table, when

NAME = "a-name-of-forty-characters-that-is-whole"


@pytest.fixture
def narrow_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")


def test_a_table_never_cuts_names(narrow_terminal, capsys):
    print_table(["name", "state", "created"], [[NAME, "RUNNING", "2026-01-01 12:00:00"]])
    assert NAME in capsys.readouterr().out


def test_brackets_are_shown_as_they_are(narrow_terminal, capsys):
    print_table(["name", "error"], [["x", "[bold]a[/bold] [b]"]])
    assert "[bold]a[/bold]" in capsys.readouterr().out


def test_without_a_terminal_cells_are_separated_by_tabs(capsys):
    print_table(["name", "state"], [["x", "RUNNING"], ["y", "QUEUED"]])
    assert capsys.readouterr().out == "x\tRUNNING\ny\tQUEUED\n"


@pytest.mark.parametrize(("count", "text"), [(500, "500 B"), (25_000, "25 kB"), (2_500_000, "2.5 MB")])
def test_sizes_are_in_bytes_kilobytes_or_megabytes(count, text):
    assert size_text(count) == text


@pytest.fixture
def in_nepal(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "NPT-5:45")
        time.tzset()
        yield
    time.tzset()


def test_times_are_those_of_the_users_time_zone(in_nepal):
    assert when(datetime(2026, 1, 31, 20, 30, 5, tzinfo=UTC)) == "2026-02-01 02:15:05"
    assert when(None) == ""
