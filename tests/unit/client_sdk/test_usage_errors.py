"""Invalid options and arguments of the commands: each results in one line without a traceback."""

import os
import runpy
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
        ("train --data x.npz --layers 3,2 --seed -1", "gradwire: invalid value for '--seed': "),
    ],
)
def test_an_invalid_option_is_a_one_line_error_that_names_the_help(monkeypatch, capsys, command, message):
    monkeypatch.setattr(sys, "argv", ["gradwire", *command.split()])
    assert ended(app, capsys).startswith(message)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "jobs list",
            "gradwire: no server address. Pass one, for example --at localhost:50051, or set GRADWIRE_ADDRESS.",
        ),
        (
            "jobs list --at x:1 --tls maybe",
            "gradwire: --tls: cannot read maybe: No such file or directory. Use 1 or the path",
        ),
        ("jobs list --at x:1 --token é", "gradwire: --token: must be text of printable ASCII"),
        (
            "jobs list --at x.org:1 --token a",
            "to x.org:1 without TLS. Use --tls 1 or --tls CA_FILE (GRADWIRE_TLS), or GRADWIRE_INSECURE=1",
        ),
        ("train --data x.npz --layers 3,2 -o m.onnx", "on a server, use gradwire models download NAME -o m"),
        ("train --data x.npz --layers 3,2 --lr inf", "gradwire: --lr must be finite and greater than 0, got inf"),
        ("models download h -o h.pt --at localhost:1", "or .onnx, or pass --format"),
        ("models download h -o h.npz --format onnx --at localhost:1", "does not match --format 'onnx'"),
    ],
)
def test_messages_of_the_sdk_name_the_options_of_the_command(monkeypatch, capsys, command, message):
    for variable in ("GRADWIRE_ADDRESS", "GRADWIRE_TOKEN", "GRADWIRE_TLS", "GRADWIRE_INSECURE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "argv", ["gradwire", *command.split()])
    assert message in ended(app, capsys, code=1)


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gradwire", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("gradwire", run_name="__main__")
    assert capsys.readouterr().out.startswith("gradwire ")


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


def ended(command, capsys, code=2):
    """Return the only line on stderr of a command that ends with this exit code."""
    with pytest.raises(SystemExit) as caught:
        command()
    assert caught.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    return line
