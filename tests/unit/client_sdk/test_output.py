"""The output of the commands."""

import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from gradwire.cli.output import (
    epochs_text,
    in_terms_of_the_command,
    labels_text,
    print_json,
    print_json_line,
    print_table,
    when,
)
from gradwire_engine.formatting import size_text

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


def test_a_narrow_terminal_leaves_each_column_readable(narrow_terminal, capsys):
    cells = ["2026-01-01 12", "a column of 11"]
    print_table(["name", "created", "error"], [["x" * 50, *cells], ["y", "", ""]])
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert any("x" * 50 in line and cells[0] in line for line in lines)
    assert max(map(len, lines)) <= 50 + 2 * 14


@dataclass
class Item:
    """Something to print."""

    name: str
    time: datetime


def test_json_has_dataclasses_as_objects_and_times_in_iso_format(capsys):
    item = Item("x", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    expected = {"name": "x", "time": "2026-01-02T03:04:05+00:00"}
    print_json([item, None])
    assert json.loads(capsys.readouterr().out) == [expected, None]
    print_json_line(item)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == expected


def test_a_cell_is_short_text():
    assert when(None) == ""
    assert when(datetime(2026, 1, 2, 3, 4, 5).astimezone()) == "2026-01-02 03:04:05"
    assert labels_text({"b": "2", "a": "1"}) == "a=1, b=2"
    assert epochs_text([]) == ""
    assert epochs_text(range(1, 11)) == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
    assert epochs_text(range(1, 12)) == "1, 2, 3, 4, 5, 6, 7, 8, 9, ..., 11"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('Pass one, for example Client("localhost:50051").', "Pass one, for example --at localhost:50051."),
        ("tls: cannot read x. Use True or the path.", "--tls: cannot read x. Use 1 or the path."),
        ("set the address with at=... or GRADWIRE_ADDRESS.", "set the address with --at or GRADWIRE_ADDRESS."),
        ("name all classes with classes=", "name all classes with --classes"),
        ("the suffix must match format='npz'", "the suffix must match --format 'npz'"),
        ("a token: x", "a token: x"),
        ("that=5, at=5", "that=5, at=5"),
    ],
)
def test_messages_name_the_options_of_the_command(said, message):
    assert in_terms_of_the_command(said) == message


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
