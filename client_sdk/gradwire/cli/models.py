"""gradwire models: list, show, download, predict, delete."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gradwire._client import Client
from gradwire._info import epoch_text
from gradwire.cli.data_files import read_inputs
from gradwire.cli.output import AsJson, At, Token, print_json, print_table, when

commands = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The model's name; it is its job's.")]


@commands.command("list")
def list_models(
    filter: Annotated[str, typer.Option(help="As 'name : \"digits\"'.")] = "",  # noqa: A002
    limit: Annotated[int, typer.Option(min=1, help="The most models to list.")] = 50,
    at: At = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List trained models, newest first."""
    with Client(at, token=token) as client:
        models = client.models(filter, limit)
    if as_json:
        print_json(models)
        return
    rows = [
        [each.name, each.layers, str(each.parameters), epoch_text(each.last_epoch), when(each.created)]
        for each in models
    ]
    print_table(["name", "layers", "parameters", "last epoch", "created"], rows)


@commands.command()
def show(name: Name, at: At = None, token: Token = None, as_json: AsJson = False) -> None:
    """Show a trained model."""
    with Client(at, token=token) as client:
        model = client.model_info(name)
    if as_json:
        print_json(model)
        return
    rows = [
        ["name", model.name],
        ["job", model.job],
        ["layers", model.layers],
        ["parameters", str(model.parameters)],
        ["weights", f"sha256 {model.weights_sha256}"],
        ["last epoch", epoch_text(model.last_epoch)],
        ["created", when(model.created)],
    ]
    print_table(["", ""], rows)


@commands.command()
def download(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="A file, or a folder for the usual name.")] = Path(),
    format: Annotated[str, typer.Option(help="safetensors or onnx.")] = "safetensors",  # noqa: A002
    at: At = None,
    token: Token = None,
) -> None:
    """Download a trained model as a file."""
    with Client(at, token=token) as client:
        path = client.download(name, output, format)
    typer.echo(f"wrote {path}")


@commands.command()
def predict(
    name: Name,
    data: Annotated[Path, typer.Option(help="Inputs: .npy, .csv of numbers, or .npz with x or x_test.")],
    classes: Annotated[bool, typer.Option("--classes", help="Print the class of each row, not the outputs.")] = False,
    at: At = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Run a trained model on the server and print a line for each row."""
    inputs = read_inputs(data)
    with Client(at, token=token) as client:
        outputs = client.predict(name, inputs)
    result = outputs.argmax(axis=1) if classes else outputs
    if as_json:
        print_json({"classes" if classes else "outputs": result.tolist()})
    else:
        np.savetxt(sys.stdout, result, fmt="%d" if classes else "%.6g", delimiter=",")


@commands.command()
def delete(name: Name, at: At = None, token: Token = None) -> None:
    """Delete a trained model; its job stays."""
    with Client(at, token=token) as client:
        client.delete_model(name)
    typer.echo(f"deleted {name}")
