"""The entry point of the command: command groups, `serve`, `health`, and error handling."""

import os
import sys
from typing import Any

import typer

from gradwire import __version__
from gradwire._exceptions import GradwireError
from gradwire._local_server import server_command
from gradwire.cli import doctor, jobs, mcp, models, token, training, workers
from gradwire.cli.bench import command as bench
from gradwire.cli.output import At, Tls, Token, connect, in_terms_of_the_command

# The base class of BadParameter covers all usage errors, but Typer does not export it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_commands = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train small neural networks on this machine or on a server.",
)
_commands.add_typer(jobs.commands, name="jobs", help="Manage jobs on a server.")
_commands.add_typer(models.commands, name="models", help="Manage trained models on a server.")
_commands.add_typer(token.commands, name="token", help="Show the token of a server on this machine.")
_commands.command("train")(training.train)
_commands.command("workers")(workers.workers)
_commands.command("doctor")(doctor.doctor)
_commands.command("bench")(bench.bench)
_commands.command("mcp")(mcp.mcp)


@_commands.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Run a server. For its options, run `gradwire serve --help`.",
)
def serve(context: typer.Context) -> None:
    """Replace this process with the server, which parses the options."""
    command = server_command()
    os.execv(command[0], [*command, *context.args])


@_commands.command()
def health(at: At = None, token: Token = None, tls: Tls = None) -> None:
    """Print the health of a server. The exit code is 1 if the server does not accept jobs."""
    with connect(at, token, tls) as client:
        status = client.health()
    typer.echo(status)
    if status != "SERVING":
        raise typer.Exit(1)


@_commands.callback(invoke_without_command=True)
def version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    """Print the version for --version."""
    if show:
        typer.echo(f"gradwire {__version__}")
        raise typer.Exit


def app() -> None:
    """Run the command. An error is printed as one line on stderr, without a traceback."""
    try:
        sys.exit(_commands(prog_name="gradwire", standalone_mode=False))
    except _UsageError as error:
        typer.echo(usage_message(error), err=True)
        sys.exit(2)
    except GradwireError as error:
        typer.echo(f"gradwire: {in_terms_of_the_command(str(error))}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def usage_message(error: Any) -> str:
    """Return a Typer error as one line, or the help if that is what Typer raises for a command without arguments."""
    message = str(error.format_message())
    if message.startswith("Usage: "):
        return message
    help_command = f"{error.ctx.command_path if error.ctx else 'gradwire'} --help"
    return f"gradwire: {message[:1].lower()}{message[1:].rstrip('.')}. See: {help_command}"
