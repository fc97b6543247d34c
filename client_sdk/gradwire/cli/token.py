"""`gradwire token`, which shows the token of a server on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from gradwire._exceptions import FileError

commands = typer.Typer(no_args_is_help=True)


@commands.callback()
def group() -> None:
    """Make `show` a subcommand, even though it is the only one."""


@commands.command()
def show(
    data: Annotated[Path, typer.Option(envvar="GRADWIRE_DATA", help="The server's data folder.")] = Path(
        "gradwire-data"
    ),
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="GRADWIRE_TOKEN_FILE", help="The file that contains the token, if it is not in --data."),
    ] = None,
) -> None:
    """Print the token that `gradwire serve --make-token` created."""
    file = token_file or data / "token"
    try:
        typer.echo(file.read_text().strip())
    except OSError as error:
        raise FileError(
            f"cannot read the token in {file}: {error.strerror}. To create one, run `gradwire serve --make-token`."
        ) from None
