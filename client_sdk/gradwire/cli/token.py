"""gradwire token: the token that a server on this machine has made."""

from pathlib import Path
from typing import Annotated

import typer

from gradwire._exceptions import GradwireError

commands = typer.Typer(no_args_is_help=True)


@commands.callback()
def group() -> None:
    """Keep `show` a command of its own, though it is the only one."""


@commands.command()
def show(
    data: Annotated[Path, typer.Option(envvar="GRADWIRE_DATA", help="The server's data folder.")] = Path(
        "gradwire-data"
    ),
    token_file: Annotated[
        Path | None, typer.Option(envvar="GRADWIRE_TOKEN_FILE", help="The token's file, where not in --data.")
    ] = None,
) -> None:
    """Print the token that `gradwire serve --make-token` has made."""
    file = token_file or data / "token"
    try:
        typer.echo(file.read_text().strip())
    except OSError as error:
        raise GradwireError(f"there is no token to show: {error}. `gradwire serve --make-token` makes one") from error
