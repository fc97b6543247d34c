"""The server options and the output functions that all commands share."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gradwire._client import Client
from gradwire._types import ModelFormat

At = Annotated[str | None, typer.Option(envvar="GRADWIRE_ADDRESS", help="The server's host:port.", show_envvar=True)]
Token = Annotated[str | None, typer.Option(envvar="GRADWIRE_TOKEN", help="The server's token.", show_envvar=True)]
Tls = Annotated[
    str | None,
    typer.Option(
        envvar="GRADWIRE_TLS",
        help="Use TLS: 1 to trust the system's certificate authorities, or a PEM file of trusted certificates.",
        show_envvar=True,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="A .safetensors, .npz or .onnx file, or a folder. Default: the current folder."
    ),
]
Format = Annotated[
    ModelFormat | None, typer.Option(help="The file format. Default: derived from the file suffix, or safetensors.")
]
KeptEpoch = Annotated[
    int | None, typer.Option("--epoch", help="Use the weights after this epoch, one of the job's kept epochs.")
]
Scale = Annotated[
    float,
    typer.Option(
        help="Multiply the inputs by this factor, for example 0.00392157 for bytes. Use the same for a model."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# The names of arguments in the SDK's messages, and the corresponding names on the command line.
_PYTHON_WORDS = {
    'Client("localhost:50051")': "--at localhost:50051",
    'client.models.download(name, "model.onnx")': "gradwire models download NAME -o model.onnx",
    "tls=True or tls=CA_FILE": "--tls 1 or --tls CA_FILE",
    "Use True or": "Use 1 or",
    "match format=": "match --format ",
    "insecure=True (GRADWIRE_INSECURE=1)": "GRADWIRE_INSECURE=1",
    ", or raise Client(timeout=...)": "",
    "Create a job with resume_from=": "In Python, use resume_from=",
}
_KEYWORD = re.compile(r"\b(at|tls|format|classes)=(?:\.\.\.)?(?!\w)")


# A list of epochs shows at most this many.
_MAX_EPOCHS = 10
# In a narrow terminal, the lines of a table wrap, so that no column becomes narrower than this many characters.
_MIN_COLUMN_WIDTH = 14


def connect(at: str | None, token: str | None, tls: str | None) -> Client:
    """Return a client that uses the options of a command."""
    return Client(at, token=token, tls=tls)


def in_terms_of_the_command(text: str) -> str:
    """Replace the Python arguments and values in a message from the SDK with command-line options."""
    for python, option in _PYTHON_WORDS.items():
        text = text.replace(python, option)
    text = re.sub(r"^(?=(?:tls|token|classes|format): )", "--", text)
    return _KEYWORD.sub(r"--\1", text)


def print_json(value: Any) -> None:
    """Print values, dataclasses, or lists of them as JSON."""
    typer.echo(json.dumps(value, default=_json_value, indent=2))


def print_json_line(value: Any) -> None:
    """Print a dataclass as one line of JSON."""
    typer.echo(json.dumps(value, default=_json_value))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in a terminal, and tab-separated lines elsewhere. The first column is never truncated."""
    # Disable markup, because names and messages can contain brackets.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    longest = max([len(headers[0]), *(len(row[0]) for row in rows)])
    console.width = max(console.width, longest + _MIN_COLUMN_WIDTH * (len(headers) - 1))
    table = Table()
    for index, header in enumerate(headers):
        table.add_column(header, overflow="fold", min_width=0 if index else longest)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def when(time: datetime | None) -> str:
    """Return a time as text, in the user's time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def epochs_text(epochs: Sequence[int]) -> str:
    """Return epochs as text, for example "10, 20, 30". A long list is shortened."""
    shown = [*epochs[: _MAX_EPOCHS - 1], epochs[-1]] if len(epochs) > _MAX_EPOCHS else epochs
    texts = [str(epoch) for epoch in shown]
    if len(epochs) > _MAX_EPOCHS:
        texts.insert(-1, "...")
    return ", ".join(texts)


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as text, for example "key=value, key=value"."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return asdict(value)
