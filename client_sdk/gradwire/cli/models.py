"""`gradwire models`, which lists, shows, downloads, runs and deletes trained models."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gradwire._display import Display
from gradwire._exceptions import FileError, NotFoundError
from gradwire._info import epoch_text
from gradwire._paths import in_existing_folder
from gradwire.cli.data_files import read_inputs, scaled
from gradwire.cli.output import (
    AsJson,
    At,
    Format,
    KeptEpoch,
    Output,
    Scale,
    Tls,
    Token,
    connect,
    labels_text,
    print_json,
    print_table,
    when,
)

commands = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name of the model, which is the name of the job that trained it.")]


@commands.command("list")
def list_models(
    filter: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            help="Conditions joined by AND, for example 'name : \"digits\"' (contains) or 'labels.team = \"vision\"'."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of models.")] = 50,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """List trained models, newest first."""
    with connect(at, token, tls) as client:
        models = client.models.list(filter, limit)
    if as_json:
        print_json(models)
        return
    rows = [
        [each.name, each.architecture, str(each.parameters), epoch_text(each.epoch), when(each.created)]
        for each in models
    ]
    print_table(["name", "architecture", "parameters", "epoch", "created"], rows)


@commands.command()
def show(name: Name, at: At = None, token: Token = None, tls: Tls = None, as_json: AsJson = False) -> None:
    """Show a trained model."""
    with connect(at, token, tls) as client:
        model = client.models.get(name)
    if as_json:
        print_json(model)
        return
    rows = [
        ["name", model.name],
        ["job", model.job],
        ["architecture", model.architecture],
        ["parameters", str(model.parameters)],
        ["weights", f"sha256 {model.weights_sha256}"],
        ["epoch", epoch_text(model.epoch)],
        ["created", when(model.created)],
    ]
    rows += [["classes", ", ".join(model.class_names)]] if model.class_names else []
    rows += [["labels", labels_text(model.labels)]] if model.labels else []
    print_table(["", ""], rows)


@commands.command()
def download(
    name: Name,
    output: Output = Path(),
    format: Format = None,  # noqa: A002
    epoch: KeptEpoch = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add the probabilities of the classes to an .onnx file.")
    ] = False,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Download a trained model as a file."""
    with connect(at, token, tls) as client, Display() as display:
        path = client.models.download(
            name, output, format, epoch, probabilities=probabilities, on_download_progress=display.downloaded
        )
    typer.echo(f"wrote {path}")


@commands.command()
def card(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the card to this file instead of printing it.")
    ] = None,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Describe a trained model as Markdown: layers, settings, data, metrics and curves."""
    if output is not None:
        in_existing_folder(output)
    with connect(at, token, tls) as client:
        text = client.models.card(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise FileError(f"cannot write {output}: {error.strerror}") from None
    typer.echo(f"wrote {output}")


@commands.command()
def predict(
    name: Name,
    data: Annotated[
        Path,
        typer.Option(help="The inputs: a .npy file, a .csv file of numbers, or a .npz file that contains x or x_test."),
    ],
    classes: Annotated[
        bool, typer.Option("--classes", help="Print the class name (or index) of each row instead of the outputs.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print the probability of each class instead of the outputs.")
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Ignore this column of a .csv file, for example the targets. Pass its name or, without a header, its "
            "number (from 1). You can repeat this option."
        ),
    ] = None,
    epoch: KeptEpoch = None,
    scale: Scale = 1.0,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Run a trained model on the server and print one line per row."""
    inputs = scaled(read_inputs(data, drop or []), scale)
    with connect(at, token, tls) as client:
        result = client.models.predict(name, inputs, classes=classes, probabilities=probabilities, epoch=epoch)
    if as_json:
        what = "classes" if classes else "probabilities" if probabilities else "outputs"
        print_json({what: result.tolist()})
    else:
        np.savetxt(sys.stdout, result, fmt="%s" if classes else "%.6g", delimiter=",")


@commands.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="The names of the models.")],
    at: At = None,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Delete trained models. Their jobs are kept."""
    with connect(at, token, tls) as client:
        for name in names:
            try:
                client.models.get(name)
            except NotFoundError as error:
                typer.echo(f"gradwire: {error}", err=True)
                continue
            client.models.delete(name)
            typer.echo(f"deleted {name}")
