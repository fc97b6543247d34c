"""Invalid options and arguments of the commands: each results in one line without a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradwire.cli.main import app
from gradwire_server.__main__ import main as serve


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("jobs list --nope", "gradwire: no such option: --nope (Possible options: --token). See: gradwire jobs list"),
        ("nope", "gradwire: no such command 'nope'. See: gradwire --help"),
        ("train --data x.npz", "gradwire: missing option '--layers'. See: gradwire train --help"),
        ("models predict", "gradwire: missing argument 'name'. See: gradwire models predict --help"),
        ("jobs list --limit 0", "gradwire: invalid value for '--limit': "),
    ],
)
def test_an_invalid_option_is_a_one_line_error_that_names_the_help(monkeypatch, capsys, command, message):
    monkeypatch.setattr(sys, "argv", ["gradwire", *command.split()])
    assert ended(app, capsys).startswith(message)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--nope", "gradwire serve: no such option: --nope"),
        ("--port=x", "gradwire serve: invalid value for '--port' (env var: 'GRADWIRE_PORT'): "),
    ],
)
def test_an_invalid_option_of_the_server_is_a_one_line_error(monkeypatch, capsys, option, message):
    monkeypatch.setattr(sys, "argv", ["gradwire serve", option])
    assert ended(serve, capsys).startswith(message)


def test_a_group_without_a_command_shows_its_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gradwire", "jobs"])
    with pytest.raises(SystemExit):
        app()
    assert "watch" in capsys.readouterr().err


def test_a_server_without_tls_is_a_one_line_error(scripted):
    command = [Path(sys.executable).with_name("gradwire"), "health", "--tls", "1", "--at", scripted.address]
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"gradwire: no gradwire server answers at {scripted.address} with TLS")


def ended(command, capsys):
    """Return the only line on stderr of a command that ends with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
