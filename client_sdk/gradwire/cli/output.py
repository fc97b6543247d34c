"""What all commands share: the options for the server, and tables, plain lines or JSON as output."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

At = Annotated[str | None, typer.Option(envvar="GRADWIRE_ADDRESS", help="The server, host:port.", show_envvar=True)]
Token = Annotated[str | None, typer.Option(envvar="GRADWIRE_TOKEN", help="The server's token.", show_envvar=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: Any) -> None:
    """Print plain values, dataclasses, or lists of them, as JSON."""
    typer.echo(json.dumps(value, default=_json_value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a dataclass as one line of JSON."""
    typer.echo(json.dumps(value, default=_json_value))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in a terminal, and lines with tabs between the cells elsewhere."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(*headers)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def when(time: datetime | None) -> str:
    """Return a time in the user's own time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def size(count: int) -> str:
    """Return a number of bytes in kB or MB."""
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return asdict(value)
